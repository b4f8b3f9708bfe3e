"""When a NATS server has certainly heard a client of nats-py."""

from nats.aio.client import Client


async def settled(client: Client) -> None:
    """The server has taken all that was said so far; nats-py's own flush lets its PING overtake what is pending."""
    await client._flush_pending(force_flush=True)
    await client.flush()
