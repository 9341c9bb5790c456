// When somebody is warned that a session is about to expire: at each threshold once, and anew before another deadline.
//
// The session says its first threshold; that there are later ones is told by its log, as each is reached.

/** @typedef {import("./types.js").Session} Session */

const LAST_CALL = 30; // seconds of warning that there are even where no threshold warns

export class Warnings {
  /** @type {number[] | null} */ #own;
  /** @type {Map<number, {sequence: number, deadline: string}>} */ #heard = new Map(); // by seconds
  /** @type {string | undefined} */ #deadline;
  #told = Infinity; // seconds that were left when somebody was last told: what was reached by then is known

  /** @param {number | number[]} [own] seconds, in place of those that the session says */
  constructor(own) {
    this.#own = own === undefined ? null : [own].flat();
  }

  /**
   * The log warns.
   *
   * @param {number} sequence
   * @param {{expires_at: string, threshold_minutes: number}} data of `session.expiring`
   */
  hear(sequence, data) {
    this.#heard.set(data.threshold_minutes * 60, { sequence, deadline: data.expires_at });
  }

  /** @param {Session} session @param {number} remaining seconds */
  isNear(session, remaining) {
    return this.#thresholds(session).some((threshold) => remaining <= threshold);
  }

  /**
   * The threshold to be told of now, in seconds; the nearest, where several have been passed. Null where there is none.
   *
   * @param {Session} session
   * @param {number} remaining seconds
   */
  due(session, remaining) {
    if (session.expires_at !== this.#deadline) [this.#deadline, this.#told] = [session.expires_at, Infinity];
    const reached = this.#thresholds(session).filter((threshold) => remaining <= threshold && threshold < this.#told);
    return reached.length ? Math.min(...reached) : null;
  }

  /** It was told. @param {number} remaining seconds */
  tell(remaining) {
    this.#told = remaining;
  }

  /** @param {Session} session @returns {number[]} */
  #thresholds(session) {
    const first = Math.max(session.timeout.warning_threshold_minutes * 60, LAST_CALL);
    // A deadline that was moved since takes its warnings with it; whether it was, a session read before cannot tell.
    const isOfNow = (/** @type {{sequence: number, deadline: string}} */ { sequence, deadline }) =>
      sequence <= session.last_sequence && deadline === session.expires_at;
    const heard = [...this.#heard].filter(([, warning]) => isOfNow(warning));
    return [...(this.#own ?? [first]), ...heard.map(([threshold]) => threshold)];
  }
}
