"""What a host's name means now, for the REST API: it judges an upstream's addresses before it takes its key."""

import asyncio
import socket
from collections.abc import Sequence

RESOLVE_TIMEOUT_S = 5.0
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_FAIL})


async def resolve(host: str, port: int) -> Sequence[str]:
    """Numeric addresses, each once; none when the host does not exist.

    Raises:
        OSError: nobody can say now.
    """
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in _NO_SUCH_HOST:
            return ()
        raise
    except UnicodeError:  # a label that no host's name has
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
