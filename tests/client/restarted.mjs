// Follows one session and tells line by line what it sees, until its standard input ends.

import { createClient } from "../../django_chat_sessions/static/chat_sessions/client.js";

const { CHAT_URL, CHAT_TOKEN, CHAT_SESSION } = process.env;
const client = createClient({ baseUrl: `${CHAT_URL}/api/chat/`, headers: { Authorization: `Token ${CHAT_TOKEN}` } });
const stream = client.session(CHAT_SESSION).stream({ after: 0, maxDelay: 1000 });
stream.on("state", (state) => console.log(`state ${state}`));
stream.on("message", ({ data }) => console.log(`message ${data.content}`));
process.stdin.on("end", () => stream.abort()).resume();
