#!/usr/bin/python3 -IS
"""Is the engine ready? Asked by the image's health check, through the control socket.

The socket is there whatever port, address or certificate the appliance serves the network with.
Exit code 0: ready; 1: not, and the answer says why.
"""

import http.client
import os
import socket
import sys

TIMEOUT_S = 5


def main() -> int:
    """Print the appliance's health; return the exit code that Docker asks for."""
    path = os.path.join(os.environ.get("APPLIANCE_STATE_DIR", ""), "control.sock")
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.settimeout(TIMEOUT_S)
        try:
            connection.sock.connect(path)
            connection.request("GET", "/health/ready")
            response = connection.getresponse()
            print(response.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException) as cause:
            print(f"{path}: {cause}")
            return 1
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
