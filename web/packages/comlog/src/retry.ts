import { check } from './check.js';

/** How long to wait between attempts: exponential, with jitter. */
export interface RetryOptions {
  /** Bound of the first wait, in milliseconds (default 50). */
  backoffMinMs?: number | undefined;
  /** Bound of every wait, in milliseconds (default 2,000). */
  backoffMaxMs?: number | undefined;
  /**
   * How often a call is tried in all (default 10; 1 means no retry). Records are tried until their
   * delivery timeout instead, and what a consumer reads until it is closed.
   */
  attemptsMax?: number | undefined;
}

/** {@link RetryOptions} with everything set. */
export class RetryPolicy {
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  readonly attemptsMax: number;

  constructor(options: RetryOptions = {}) {
    const { backoffMinMs = 50, backoffMaxMs = 2_000, attemptsMax = 10 } = options;
    this.backoffMinMs = atLeast0('retry.backoffMinMs', backoffMinMs);
    this.backoffMaxMs = atLeast0('retry.backoffMaxMs', backoffMaxMs);
    this.attemptsMax = atLeast0('retry.attemptsMax', attemptsMax);
  }

  /**
   * How long to wait after so many failures in a row (1 or more), in milliseconds: in the upper
   * half of the bound, so that clients that failed together do not come back together. `dice` is
   * random, from 0 to 1.
   */
  backoffMs(failures: number, dice: number): number {
    const bound = Math.min(this.backoffMaxMs, this.backoffMinMs * 2 ** Math.min(failures - 1, 30));
    return bound / 2 + (bound / 2) * dice;
  }
}

/** A number that is not below 0. */
export function atLeast0(name: string, value: number): number {
  return check(typeof value === 'number' && value >= 0, name, 'a number from 0', value);
}
