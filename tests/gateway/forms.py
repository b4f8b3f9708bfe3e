"""Forms as clients upload them."""

BOUNDARY = b"----formdata-0123"


def form(*fields: tuple[str, bytes], boundary: bytes = BOUNDARY) -> tuple[bytes, bytes]:
    """Content type and body; a field called "file" is one."""
    parts = []
    for name, value in fields:
        head = f'Content-Disposition: form-data; name="{name}"'.encode()
        if name == "file":
            head += b'; filename="a.wav"\r\nContent-Type: audio/wav'
        parts.append(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n")
    return b"multipart/form-data; boundary=" + boundary, b"".join(parts) + b"--" + boundary + b"--\r\n"
