// Errors in words.

/** What an error means, for people. */
export function explain(error, fallback) {
  if (error.name === "NetworkError") return "The server cannot be reached. Nothing is lost; try again in a moment.";
  if (error.code === "throttled") return `That was a lot at once. Try again in ${error.retryAfter ?? "a few"} seconds.`;
  if (error.code === "session_limit_reached") return "You have as many open conversations as you may. End one first.";
  return error.explanation ?? fallback;
}
