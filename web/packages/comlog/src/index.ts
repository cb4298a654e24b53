/** Client of comlog for browsers and Node. Importing it does nothing: see the README. */
export type { Delivered } from './batch.js';
export type { AppendBatchesRequest, BatchesRead, ReadRequest } from './batches.js';
export { Client, type AppendRequest, type OffsetFound, type OffsetQuery, type ReadResult } from './client.js';
export { Consumer, type Assigned, type Assignment, type ConsumerOptions } from './consumer.js';
export { ComlogError, type Code, type ErrorDetails, type Reason } from './error.js';
export type { Connection, Feed, Piece, Subscription, TailSource } from './feed.js';
export type { CommittedOffset, GroupOffset } from './groups.js';
export type { CallOptions, ClientOptions, ClientSettings } from './options.js';
export { murmur2, partitionForKey } from './partitioner.js';
export { Producer, type ProducerOptions, type ProducerRecord } from './producer.js';
export type {
  BytesLike,
  ConsumerRecord,
  Header,
  HeaderInput,
  LogRecord,
  RecordInput,
  TopicPartition,
} from './record.js';
export type { RetryOptions, RetryPolicy } from './retry.js';
export type {
  Durability,
  OffsetRange,
  PartitionInfo,
  Topic,
  TopicConfig,
  TopicDescription,
} from './topic.js';
export type { Appended, Compression, StartAt } from './wire.js';
