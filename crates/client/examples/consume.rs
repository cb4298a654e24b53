//! Follows a topic from its beginning for a while, and commits where it got to.
//!
//! ```text
//! comlog serve
//! cargo run -p comlog-client --example consume -- http://127.0.0.1:50052 greetings
//! ```

use std::time::Duration;

use comlog_client::{Client, ClientConfig, Consumer, ConsumerConfig, Error, OffsetReset, StartAt};

#[tokio::main]
async fn main() -> comlog_client::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next();
    let server = server.unwrap_or_else(|| "http://127.0.0.1:50052".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "greetings".to_owned());
    run(&server, &topic).await
}

pub(crate) async fn run(server: &str, topic: &str) -> comlog_client::Result<()> {
    let client = Client::new(ClientConfig::new(server))?;
    let config = ConsumerConfig::new()
        .group("example")
        .offset_reset(OffsetReset::Earliest);
    let mut consumer = Consumer::new(&client, config)?;
    consumer.subscribe([topic]);

    loop {
        let batches = match consumer.poll(Duration::from_secs(1)).await {
            Ok(batches) => batches,
            // Damage is named, and reading can go on behind it.
            Err(Error::Corrupt {
                topic,
                partition,
                offsets,
                reason,
            }) => {
                eprintln!("{topic} {partition} lost {offsets}: {reason}");
                consumer.seek(&topic, partition, StartAt::Offset(offsets.end))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if batches.is_empty() {
            break;
        }
        for batch in &batches {
            for record in batch.iter() {
                let record = record?;
                let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                println!("{} {}: {value}", batch.partition(), record.offset);
            }
        }
        consumer.commit().await?;
    }
    consumer.close().await
}
