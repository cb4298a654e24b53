//! One service behind two bounds of a message: that of appends, and that of everything else.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// Most bytes of one message of a call that appends nothing: gRPC's own default.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The methods that append, of all services.
const APPENDS: [&str; 5] = [
    "Append",
    "AppendBatches",
    "AppendStream",
    "BatchAppend",
    "StreamBatchAppend",
];

/// Whether the method at this path appends.
pub(crate) fn appends(path: &str) -> bool {
    let method = path.rsplit('/').next();
    method.is_some_and(|method| APPENDS.contains(&method))
}

/// The same service twice, each with its own bound of a message.
#[derive(Debug, Clone)]
pub(crate) struct BySize<S> {
    pub(crate) appends: S,
    pub(crate) others: S,
}

impl<S: NamedService> NamedService for BySize<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for BySize<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated services always are.
        match self.appends.poll_ready(context) {
            Poll::Ready(Ok(())) => self.others.poll_ready(context),
            other => other,
        }
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        if appends(request.uri().path()) {
            self.appends.call(request)
        } else {
            self.others.call(request)
        }
    }
}
