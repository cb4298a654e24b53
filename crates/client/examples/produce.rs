//! Sends records and waits for their offsets.
//!
//! ```text
//! comlog serve
//! cargo run -p comlog-client --example produce -- http://127.0.0.1:50052 greetings
//! ```

use comlog_client::{Client, ClientConfig, Producer, ProducerConfig, ProducerRecord};

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
    let producer = Producer::new(&client, ProducerConfig::new())?;

    // One record, acknowledged before the next.
    let record = ProducerRecord::keyed(topic, "en", "hello");
    let delivered = producer.append(record).await?;
    println!("hello is at {:?}", delivered.offset);

    // Many records: `send` waits only while the buffer is full, and they travel in batches.
    for number in 0..1_000 {
        let value = format!("greeting {number}");
        let record = ProducerRecord::new(topic, &value);
        let report = |result: comlog_client::Result<_>| {
            if let Err(error) = result {
                eprintln!("not delivered: {error}");
            }
        };
        producer.send_with(record, report).await?;
    }
    producer.close().await?;
    println!("1000 more are acknowledged");
    Ok(())
}
