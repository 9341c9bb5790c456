// Handlers by name.

export class Emitter {
  /** @type {Map<string, Set<(...details: any[]) => void>>} */ #handlers = new Map();

  /**
   * Call `handler` whenever that happens. The function that comes back takes the handler away.
   *
   * @param {string} type
   * @param {(...details: any[]) => void} handler
   * @returns {() => void}
   */
  on(type, handler) {
    const handlers = this.#handlers.get(type) ?? new Set();
    this.#handlers.set(type, handlers.add(handler));
    return () => void handlers.delete(handler);
  }

  /**
   * @protected
   * @param {string} type
   * @param {...any} details
   */
  emit(type, ...details) {
    for (const handler of [...(this.#handlers.get(type) ?? [])]) {
      try {
        handler(...details);
      } catch (error) {
        console.error(error); // the handler's own trouble, which stops nobody else
      }
    }
  }
}
