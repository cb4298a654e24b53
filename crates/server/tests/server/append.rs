//! Append, AppendBatches, Sync, Fence, InitProducerId.

use std::sync::atomic::Ordering::Relaxed;

use comlog_proto::v1;
use comlog_proto::v1::log_service_client::LogServiceClient;
use comlog_server::BrokerConfig;
use tonic::Code;

use crate::common::*;

#[tokio::test]
async fn records_come_back_with_keys_headers_and_timestamps() {
    let server = TestServer::start().await;
    let full = v1::Record {
        key: Some("k".into()),
        value: Some("v".into()),
        headers: vec![
            v1::Header {
                name: "h".to_owned(),
                value: Some("1".into()),
            },
            v1::Header {
                name: "h".to_owned(),
                value: None,
            },
        ],
        timestamp_ms: Some(42),
        offset: 77,
    };
    let bare = v1::Record::default();
    for compression in 0..=4 {
        let topic = format!("t{compression}");
        let request = v1::AppendRequest {
            records: vec![full.clone(), bare.clone()],
            compression,
            ..append_request(&topic, 0, &[])
        };
        let appended = server
            .log()
            .append(request)
            .await
            .expect("appends")
            .into_inner();
        let appended = appended.appended.expect("set");
        assert_eq!((appended.base_offset, appended.next_offset), (0, 2));
        assert!(appended.durable && !appended.duplicate);
        assert_eq!(appended.append_time_ms, None);
        let request = v1::ReadRequest {
            form: v1::Form::Records as i32,
            ..read_request(&topic, 0, 0)
        };
        let read = server
            .log()
            .read(request)
            .await
            .expect("reads")
            .into_inner();
        let records = read.fetched.expect("set").records;
        assert_eq!(
            records[0],
            v1::Record {
                offset: 0,
                ..full.clone()
            }
        );
        let stamped = v1::Record {
            offset: 1,
            timestamp_ms: Some(NOW_MS),
            ..bare.clone()
        };
        assert_eq!(
            records[1], stamped,
            "the server's clock, key and value absent"
        );
    }
}

#[tokio::test]
async fn requests_that_cannot_be_are_refused_with_their_reason() {
    let server = TestServer::start().await;
    let refused = async |request: v1::AppendRequest, code, reason| {
        assert_refused(server.log().append(request).await, code, reason);
    };
    let good = append_request("t", 0, &["v"]);
    let invalid = Code::InvalidArgument;
    refused(append_request("t", 0, &[]), invalid, "INVALID_REQUEST").await;
    refused(
        append_request("../x", 0, &["v"]),
        invalid,
        "INVALID_TOPIC_NAME",
    )
    .await;
    refused(
        append_request("__mine", 0, &["v"]),
        invalid,
        "INVALID_TOPIC_NAME",
    )
    .await;
    refused(
        append_request("t", 7, &["v"]),
        Code::NotFound,
        "PARTITION_NOT_FOUND",
    )
    .await;
    let request = v1::AppendRequest {
        compression: 9,
        ..good.clone()
    };
    refused(request, invalid, "INVALID_REQUEST").await;
    let request = v1::AppendRequest {
        expected_offset: Some(-1),
        ..good.clone()
    };
    refused(request, invalid, "INVALID_REQUEST").await;
    let request = v1::AppendRequest {
        producer: Some(v1::Producer {
            id: 1,
            epoch: 40_000,
            sequence: 0,
        }),
        ..good.clone()
    };
    refused(request, invalid, "INVALID_REQUEST").await;
    let large = "x".repeat((1 << 20) + 1);
    refused(
        append_request("t", 0, &[&large]),
        invalid,
        "BATCH_TOO_LARGE",
    )
    .await;
    assert_eq!(server.append("t", 0, "v").await, 0, "nothing was appended");
}

#[tokio::test]
async fn topics_are_not_made_when_the_configuration_forbids_it() {
    let mut config = BrokerConfig::default();
    config.topics.auto_create = false;
    let server = TestServer::start_with(config).await;
    let answer = server.log().append(append_request("t", 0, &["v"])).await;
    assert_refused(answer, Code::NotFound, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn encoded_batches_are_appended_each_whole_and_stop_at_the_first_refusal() {
    let server = TestServer::start().await;
    let good = batch(&["a", "b"]);
    let bad = broken(&batch(&["c"]));
    let request = v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        batches: concat(&[good.clone(), bad, good.clone(), good]),
        ..Default::default()
    };
    let answer = server.log().append_batches(request).await.expect("answers");
    let results = answer.into_inner().results;
    assert_eq!(results.len(), 4);
    assert_eq!(appended(&results[0]).next_offset, 2);
    assert_eq!(error(&results[1]).reason(), v1::Reason::InvalidRecordBatch);
    assert_eq!(error(&results[1]).code, Code::InvalidArgument as i32);
    assert_eq!(error(&results[1]).topic, "t");
    for result in &results[2..] {
        assert_eq!(error(result).reason(), v1::Reason::Suspended);
    }
    assert_eq!(server.values("t", 0, 0).await, ["a", "b"]);
}

#[tokio::test]
async fn a_refusal_by_the_log_suspends_the_batches_behind_it() {
    let server = TestServer::start().await;
    let request = v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        batches: concat(&[
            batch_of(&["a"], 5, 0, 0),
            batch_of(&["c"], 5, 0, 9),
            batch(&["d"]),
        ]),
        ..Default::default()
    };
    let answer = server.log().append_batches(request).await.expect("answers");
    let results = answer.into_inner().results;
    assert_eq!(appended(&results[0]).base_offset, 0);
    assert_eq!(error(&results[1]).reason(), v1::Reason::OutOfOrderSequence);
    assert_eq!(error(&results[2]).reason(), v1::Reason::Suspended);
    assert_eq!(server.values("t", 0, 0).await, ["a"]);
}

#[tokio::test]
async fn bytes_that_are_no_batch_are_refused() {
    let server = TestServer::start().await;
    let refused = async |batches: bytes::Bytes| {
        let request = v1::AppendBatchesRequest {
            topic: "t".to_owned(),
            batches,
            ..Default::default()
        };
        let answer = server.log().append_batches(request).await.expect("answers");
        let results = answer.into_inner().results;
        assert_eq!(results.len(), 1);
        error(&results[0]).reason()
    };
    let whole = batch(&["a"]);
    assert_eq!(
        refused(whole.slice(..30)).await,
        v1::Reason::InvalidRecordBatch
    );
    let mut claims_more = whole.to_vec();
    claims_more[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    assert_eq!(
        refused(claims_more.into()).await,
        v1::Reason::InvalidRecordBatch
    );
    let mut magic = whole.to_vec();
    magic[16] = 1;
    assert_eq!(refused(magic.into()).await, v1::Reason::InvalidRecordBatch);
    let mut long = whole.to_vec();
    long[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    assert_eq!(refused(long.into()).await, v1::Reason::BatchTooLarge);
    let request = v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        ..Default::default()
    };
    let answer = server.log().append_batches(request).await;
    assert_refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
}

#[tokio::test]
async fn log_append_time_is_the_servers() {
    let server = TestServer::start().await;
    let request = v1::CreateTopicRequest {
        name: "t".to_owned(),
        config: Some(v1::TopicConfig {
            timestamp_type: v1::TimestampType::LogAppendTime as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    server
        .topics()
        .create_topic(request)
        .await
        .expect("creates");
    let mut request = append_request("t", 0, &["v"]);
    request.records[0].timestamp_ms = Some(5);
    let answer = server
        .log()
        .append(request)
        .await
        .expect("appends")
        .into_inner();
    assert_eq!(answer.appended.expect("set").append_time_ms, Some(NOW_MS));
    let request = v1::ReadRequest {
        form: v1::Form::Records as i32,
        ..read_request("t", 0, 0)
    };
    let read = server
        .log()
        .read(request)
        .await
        .expect("reads")
        .into_inner();
    assert_eq!(
        read.fetched.expect("set").records[0].timestamp_ms,
        Some(NOW_MS)
    );
}

#[tokio::test]
async fn of_racing_appends_at_one_expected_offset_exactly_one_wins() {
    let server = TestServer::start().await;
    server.append("t", 0, "first").await;
    let racers = (0..16).map(|index| {
        let mut log = server.log();
        let request = v1::AppendRequest {
            expected_offset: Some(1),
            ..append_request("t", 0, &[&format!("racer {index}")])
        };
        tokio::spawn(async move { log.append(request).await })
    });
    let racers: Vec<_> = racers.collect();
    let mut winners = 0;
    for racer in racers {
        match racer.await.expect("runs") {
            Ok(answer) => {
                winners += 1;
                assert_eq!(answer.into_inner().appended.expect("set").base_offset, 1);
            }
            Err(status) => {
                let expected = (
                    Code::FailedPrecondition,
                    "UNEXPECTED_OFFSET".to_owned(),
                    Some(2),
                );
                assert_eq!(refusal(&status), expected);
            }
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(server.values("t", 0, 0).await.len(), 2);
}

#[tokio::test]
async fn a_fence_keeps_writers_without_its_token_out() {
    let server = TestServer::start().await;
    server.append("t", 0, "before").await;
    let fence = |token| v1::FenceRequest {
        topic: "t".to_owned(),
        partition: 0,
        token,
    };
    let fenced = server
        .log()
        .fence(fence(7))
        .await
        .expect("fences")
        .into_inner();
    assert_eq!(fenced.log_end_offset, 1);
    let stale = server.log().fence(fence(7)).await;
    assert_refused(stale, Code::FailedPrecondition, "STALE_FENCING_TOKEN");
    let with = |token| v1::AppendRequest {
        fencing_token: token,
        ..append_request("t", 0, &["v"])
    };
    for token in [None, Some(6)] {
        let answer = server.log().append(with(token)).await;
        assert_refused(answer, Code::FailedPrecondition, "FENCED");
    }
    server
        .log()
        .append(with(Some(7)))
        .await
        .expect("holds the token");
    assert_eq!(server.values("t", 0, 0).await, ["before", "v"]);
}

#[tokio::test]
async fn a_retried_batch_returns_its_first_offset() {
    let server = TestServer::start().await;
    let id = server.init_producer_id().await;
    let request = |sequence, epoch| v1::AppendRequest {
        producer: Some(v1::Producer {
            id,
            epoch,
            sequence,
        }),
        ..append_request("t", 0, &["v", "w"])
    };
    let first = server
        .log()
        .append(request(0, 0))
        .await
        .expect("appends")
        .into_inner();
    server.append("t", 0, "between").await;
    let again = server
        .log()
        .append(request(0, 0))
        .await
        .expect("answers")
        .into_inner();
    let (first, again) = (first.appended.expect("set"), again.appended.expect("set"));
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((first.base_offset, first.next_offset), (0, 2));
    assert_eq!((again.base_offset, again.next_offset), (0, 2));
    let gap = server.log().append(request(9, 0)).await;
    assert_refused(gap, Code::FailedPrecondition, "OUT_OF_ORDER_SEQUENCE");

    let raise = |producer_epoch| v1::InitProducerIdRequest {
        producer_id: Some(id),
        producer_epoch: Some(producer_epoch),
    };
    let raised = server
        .log()
        .init_producer_id(raise(0))
        .await
        .expect("raises")
        .into_inner();
    assert_eq!((raised.producer_id, raised.producer_epoch), (id, 1));
    let second_instance = server.log().init_producer_id(raise(0)).await;
    assert_refused(second_instance, Code::FailedPrecondition, "PRODUCER_FENCED");
    server
        .log()
        .append(request(0, 1))
        .await
        .expect("the new instance");
    let old = server.log().append(request(2, 0)).await;
    assert_refused(old, Code::FailedPrecondition, "PRODUCER_FENCED");
    let unknown = v1::InitProducerIdRequest {
        producer_id: Some(i64::MAX),
        producer_epoch: Some(0),
    };
    let unknown = server.log().init_producer_id(unknown).await;
    assert_refused(unknown, Code::InvalidArgument, "INVALID_REQUEST");
}

#[tokio::test]
async fn memory_durability_is_acknowledged_before_a_sync() {
    let server = TestServer::start().await;
    let request = v1::CreateTopicRequest {
        name: "t".to_owned(),
        config: Some(v1::TopicConfig {
            durability: v1::Durability::Memory as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    server
        .topics()
        .create_topic(request)
        .await
        .expect("creates");
    server.dirs.hold_syncs();
    let answer = server.log().append(append_request("t", 0, &["v"])).await;
    let appended = answer
        .expect("needs no sync")
        .into_inner()
        .appended
        .expect("set");
    assert!(!appended.durable);
    assert_eq!(server.values("t", 0, 0).await, ["v"]);
    server.dirs.release_syncs();
    let request = v1::AppendRequest {
        durability: v1::Durability::Durable as i32,
        ..append_request("t", 0, &["w"])
    };
    let answer = server
        .log()
        .append(request)
        .await
        .expect("appends")
        .into_inner();
    assert!(
        answer.appended.expect("set").durable,
        "a request may ask for more"
    );
    let request = v1::SyncRequest {
        topic: "t".to_owned(),
        partition: 0,
    };
    let synced = server
        .log()
        .sync(request)
        .await
        .expect("syncs")
        .into_inner();
    assert_eq!(synced.durable_offset, 2);
}

#[tokio::test]
async fn what_is_in_memory_is_synced_after_a_while() {
    let mut config = BrokerConfig::default();
    config.topic_defaults.durability = comlog_server::Durability::Memory;
    config.append.sync_interval_ms = 5;
    let server = TestServer::start_with(config).await;
    let before = server.dirs.syncs();
    server.append("t", 0, "v").await;
    let describe = || v1::DescribeTopicRequest {
        name: "t".to_owned(),
    };
    loop {
        let answer = server
            .topics()
            .describe_topic(describe())
            .await
            .expect("describes");
        if answer.into_inner().partitions[0].durable_offset == 1 {
            break;
        }
    }
    assert!(server.dirs.syncs() > before);
}

#[tokio::test]
async fn bytes_under_way_are_bounded() {
    let mut config = BrokerConfig::default();
    config.append.inflight_bytes_max = 100;
    let server = TestServer::start_with(config).await;
    server.create_topic("t", 1).await;
    server.dirs.hold_syncs();
    let mut log = server.log();
    let value = "x".repeat(80);
    let request = append_request("t", 0, &[&value]);
    let first = tokio::spawn({
        let request = request.clone();
        async move { log.append(request).await }
    });
    server
        .until(|counters| {
            counters
                .appending_batches
                .load(std::sync::atomic::Ordering::Relaxed)
                == 1
        })
        .await;
    let second = server.log().append(request.clone()).await;
    assert_refused(second, Code::ResourceExhausted, "OVERLOADED");
    server.dirs.release_syncs();
    first.await.expect("runs").expect("appends");
    server.log().append(request).await.expect("room again");
}

#[tokio::test]
async fn a_message_that_is_too_large_says_so() {
    let mut config = BrokerConfig::default();
    config.append.request_bytes_max = 8 << 20;
    let server = TestServer::start_with(config).await;
    let batches = bytes::Bytes::from(vec![0; 9 << 20]);
    let request = v1::AppendBatchesRequest {
        topic: "t".to_owned(),
        batches: batches.clone(),
        ..Default::default()
    };
    let unary = server.log().append_batches(request).await;
    assert_refused(unary, Code::InvalidArgument, "BATCH_TOO_LARGE");
    let request = v1::AppendStreamRequest {
        topic: "t".to_owned(),
        batch: batches,
        ..Default::default()
    };
    let stream = server
        .log()
        .append_stream(tokio_stream::iter([request]))
        .await;
    let answer = stream.expect("opens").into_inner().message().await;
    assert_refused(answer, Code::InvalidArgument, "BATCH_TOO_LARGE");
}

#[tokio::test]
async fn a_connection_has_a_bound_of_its_own() {
    let server = TestServer::start().await;
    server.create_topic("t", 1).await;
    server.dirs.hold_syncs();
    // In the process, where the extensions of a request reach the service as a listener sets them.
    let log = LogServiceClient::new(server.broker.routes());
    let connection = comlog_server::ConnectionBudget::new(100, 100);
    let value = "x".repeat(80);
    let request = || {
        let mut request = tonic::Request::new(append_request("t", 0, &[&value]));
        request.extensions_mut().insert(connection.clone());
        request
    };
    let mut first = log.clone();
    let first_request = request();
    let first = tokio::spawn(async move { first.append(first_request).await });
    server
        .until(|c| c.appending_batches.load(Relaxed) == 1)
        .await;
    let refused = log.clone().append(request()).await;
    let status = assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    assert!(
        status.message().contains("per_connection"),
        "{}",
        status.message()
    );
    let mut other = server.log();
    let other = tokio::spawn(async move { other.append(append_request("t", 0, &["v"])).await });
    server
        .until(|c| c.appending_batches.load(Relaxed) == 2)
        .await;
    server.dirs.release_syncs();
    first.await.expect("runs").expect("appends");
    other
        .await
        .expect("runs")
        .expect("another connection is not affected");
}

#[tokio::test]
async fn the_queue_of_a_partition_is_bounded() {
    let mut config = BrokerConfig::default();
    config.append.partition_queue_max = 1;
    let server = TestServer::start_with(config).await;
    server.create_topic("t", 1).await;
    server.dirs.hold_syncs();
    let spawn = || {
        let mut log = server.log();
        tokio::spawn(async move { log.append(append_request("t", 0, &["v"])).await })
    };
    let groups = server.broker.counters().groups.load(Relaxed);
    let at_the_disk = spawn();
    server.until(|c| c.groups.load(Relaxed) == groups + 1).await;
    let queued = spawn();
    server
        .until(|c| c.appending_batches.load(Relaxed) == 2)
        .await;
    let refused = server.log().append(append_request("t", 0, &["v"])).await;
    assert_refused(refused, Code::ResourceExhausted, "OVERLOADED");
    server.dirs.release_syncs();
    at_the_disk.await.expect("runs").expect("appends");
    queued.await.expect("runs").expect("appends");
}
