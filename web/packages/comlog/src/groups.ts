import type { Calls } from './calls.js';
import { checkList, checkOffset, checkPlace, checkText } from './check.js';
import { ComlogError } from './error.js';
import type { CallOptions } from './options.js';
import type { TopicPartition } from './record.js';
import { nonsense } from './topic.js';

/** The next record that a group wants from a partition. */
export interface GroupOffset extends TopicPartition {
  offset: bigint;
  /** Anything worth remembering, at most 4 KiB. */
  metadata?: string | undefined;
}

/** A {@link GroupOffset} that was committed. */
export interface CommittedOffset extends GroupOffset {
  metadata: string;
  committedAt: Date;
}

/** Commits offsets of a group, all or none. */
export async function commitOffsets(
  calls: Calls,
  group: string,
  offsets: readonly GroupOffset[],
  options?: CallOptions,
): Promise<void> {
  const message = {
    group: checkText('group', group),
    offsets: checkList('offsets', offsets).map((one) => {
      checkPlace(one);
      const { topic, partition, offset, metadata = '' } = one;
      return { topic, partition, offset: checkOffset('offset', offset), metadata: checkText('metadata', metadata) };
    }),
  };
  await calls.again((call) => calls.groups.commitOffsets(message, call), options);
}

/** What a group has committed, for these partitions or all; empty for a group that never did. */
export async function committedOffsets(
  calls: Calls,
  group: string,
  partitions: readonly TopicPartition[],
  options?: CallOptions,
): Promise<CommittedOffset[]> {
  const message = {
    group: checkText('group', group),
    partitions: checkList('partitions', partitions).map(({ topic, partition }) => ({ topic, partition })),
  };
  message.partitions.forEach(checkPlace);
  try {
    const { offsets } = await calls.again((call) => calls.groups.fetchOffsets(message, call), options);
    return offsets.map(({ topic, partition, offset, metadata, committedMs }) => {
      if (offset < 0n) throw nonsense(`a commit of offset ${offset}`);
      return { topic, partition, offset, metadata, committedAt: new Date(Number(committedMs)) };
    });
  } catch (error) {
    if (error instanceof ComlogError && error.reason === 'GROUP_NOT_FOUND') return [];
    throw error;
  }
}
