// What goes over the wire, for editors and for `tsc --checkJs`. Nothing here runs, and nothing imports it at run time.

/** @typedef {"created" | "active" | "resumed" | "expired" | "ended" | "failed" | "archived"} Status */
/** @typedef {"multiple" | "single" | "per_tab" | "active_tab_wins"} Strategy */
/** @typedef {"user" | "assistant" | "system" | "tool"} Role */
/** @typedef {"queued" | "running" | "succeeded" | "failed" | "cancelled"} RunStatus */
/** @typedef {"store" | "wait" | "stream" | "background"} Delivery */
/** @typedef {Record<string, any>} Data */
/** @typedef {Data & {type: string}} Part */

/**
 * @typedef {object} Timeout
 * @property {string} mode
 * @property {number} timeout_minutes
 * @property {number} max_duration_minutes
 * @property {number} warning_threshold_minutes
 * @property {boolean} auto_renew
 */

/**
 * @typedef {object} Session
 * @property {string} id
 * @property {string | null} external_id
 * @property {string} agent
 * @property {string} application
 * @property {string} title
 * @property {Status} status
 * @property {boolean} is_near_expiration
 * @property {string | null} parent
 * @property {string} root
 * @property {{id: string, sequence: number} | null} forked_from
 * @property {Strategy} strategy
 * @property {string | null} client
 * @property {string[]} tags
 * @property {Data} metadata
 * @property {Data} environment
 * @property {Timeout} timeout
 * @property {string} created_at
 * @property {string} last_activity_at
 * @property {string} expires_at
 * @property {number} time_remaining_seconds
 * @property {string | null} ended_at
 * @property {string} end_reason
 * @property {number} renewal_count
 * @property {number} message_count
 * @property {number} token_count
 * @property {number} last_sequence
 */

/**
 * @typedef {object} Message
 * @property {number} sequence
 * @property {string | null} external_id
 * @property {Role} role
 * @property {string} content
 * @property {Part[]} parts
 * @property {Data} metadata
 * @property {string | null} run
 * @property {number | null} token_count
 * @property {string} created_at
 * @property {string | null} edited_at
 */

/**
 * @typedef {object} Run
 * @property {string} id
 * @property {RunStatus} status
 * @property {string | null} error
 * @property {number} input_sequence
 * @property {number | null} output_sequence
 * @property {string} created_at
 * @property {string | null} started_at
 * @property {string | null} first_token_at
 * @property {string | null} finished_at
 * @property {number} attempt
 * @property {number | null} input_tokens
 * @property {number | null} output_tokens
 * @property {string | null} cost
 */

/** @typedef {{sequence: number, type: string, created_at: string, data: any}} ChatEvent */

/**
 * One thing that a stream brings: an event of the log, or (`message.delta`) a piece of an answer being written, whose
 * `data` is `{run, index, text}` and whose `sequence` is that of the event before it.
 *
 * @typedef {{id: string, type: string, sequence: number, created_at?: string, data: any}} Frame
 */

/** @typedef {{results: Session[], next: string | null}} SessionPage */
/** @typedef {{results: Run[], next: string | null}} RunPage */
/** @typedef {{before: number | null, after: number | null}} Cursors */
/** @typedef {{messages: Message[], has_more: boolean, cursors: Cursors}} MessagePage */
/** @typedef {{events: ChatEvent[], has_more: boolean, cursors: Cursors}} EventPage */
/** @typedef {Record<string, string | number | boolean | null | undefined>} Query */
/** @typedef {Partial<Timeout> | {[field: string]: null}} TimeoutChange */

/**
 * @typedef {object} Opening
 * @property {string} [agent]
 * @property {string} [application]
 * @property {string} [external_id]
 * @property {string} [title]
 * @property {Data} [metadata]
 * @property {Data} [environment]
 * @property {Data} [state]
 * @property {string[]} [tags]
 * @property {string} [parent]
 * @property {string} [continue_from]
 * @property {TimeoutChange} [timeout]
 * @property {Array<{role: Role, content?: string, parts?: Part[], metadata?: Data}>} [messages]
 * @property {string} [transcript]
 */

/**
 * What is said. Without an `externalId` it gets one, so that sending it again can never store it twice.
 *
 * @typedef {object} Draft
 * @property {string} [content]
 * @property {Part[]} [parts]
 * @property {Data} [metadata]
 * @property {Role} [role]
 * @property {string} [externalId]
 * @property {Delivery} [delivery]
 */

/** @typedef {{message: Message, reply?: Message | null, run?: Run | null, session: Session}} Answer */

/**
 * Of a single call: `signal` gives it up, `timeout` is in milliseconds, `ifMatch` is the last sequence that the caller
 * knows of.
 *
 * @typedef {{signal?: AbortSignal, timeout?: number, ifMatch?: number}} CallOptions
 */

export {};
