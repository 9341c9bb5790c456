"""The queue of a test: its own, so that a shared broker is left as it was."""

from kombu import Exchange, Queue


def queue(name: str) -> Queue:
    """Return the queue; where the broker can, it removes itself a minute after its last user went."""
    return Queue(name, Exchange(name, auto_delete=True), routing_key=name, expires=60)


def transport(url: str) -> str | None:
    """Return what speaks to the broker at `url`: for a folder the demo's, as Kombu's may hand out half a message."""
    return "example_project.broker:Transport" if url.startswith("filesystem:") else None
