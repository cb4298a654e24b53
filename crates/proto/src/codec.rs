//! The codec of every service: messages are measured before they are decoded.

use std::marker::PhantomData;
use std::sync::OnceLock;

use prost::Message;
use prost::bytes::Buf;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::bounds::{Refused, Request};

/// Charges what a request will take once it is decoded, beside the bytes it has; or refuses it.
pub type Meter = fn(bytes: u64) -> Result<(), Status>;

static METER: OnceLock<Meter> = OnceLock::new();

/// Has every request with repeated fields charged by `meter` before it is decoded, in this whole
/// process. Only the first call counts: servers of one process charge in the same way.
pub fn charge_requests(meter: Meter) {
    METER.get_or_init(|| meter);
}

/// Encodes `T` and decodes `U`, as [`ProstCodec`] does; requests are held to their
/// [bounds](crate::bounds) first. A request that is malformed or beyond a bound is
/// `INVALID_ARGUMENT`.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> BoundedCodec<T, U> {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> BoundedDecoder<U> {
        BoundedDecoder {
            request: Request::of::<U>(),
            inner: ProstCodec::<T, U>::raw_decoder(BufferSettings::default()),
        }
    }
}

/// The decoding half of a [`BoundedCodec`].
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U> {
    /// What bounds it; `None` for answers.
    request: Option<&'static Request>,
    inner: ProstDecoder<U>,
}

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let Some(request) = self.request else {
            return self.inner.decode(source);
        };
        if !request.fields.is_empty() {
            // The bytes of a message lie in one piece.
            let cost = request.measure(source.chunk());
            charge(cost.map_err(|refused| invalid(request, &refused))?)?;
        }
        self.inner
            .decode(source)
            .map_err(|status| match status.code() {
                Code::Internal => Status::invalid_argument(format!(
                    "{}: malformed message: {}",
                    request.name,
                    status.message()
                )),
                _ => status,
            })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.inner.buffer_settings()
    }
}

fn charge(bytes: u64) -> Result<(), Status> {
    match METER.get() {
        Some(meter) if bytes > 0 => meter(bytes),
        _ => Ok(()),
    }
}

fn invalid(request: &Request, refused: &Refused) -> Status {
    Status::invalid_argument(format!("{}: {refused}", request.name))
}
