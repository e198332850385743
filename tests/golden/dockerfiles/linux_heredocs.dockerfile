# syntax=docker/dockerfile:1
FROM debian:12
RUN <<EOF
set -e
apt-get update
apt-get install -y curl
EOF
RUN <<-"END" python3
	import sys
	print("${NOT_FILLED}", sys.version)
	END
COPY <<motd <<'raw.txt' /etc/
Welcome to ${NAME:-here}
# this is text, not a comment
motd
Costs $5
raw.txt
RUN cat <<A > /a && cat <<B > /b
first
A
second
B
RUN <<EOF
#!/usr/bin/env python3
print("a program")
EOF
COPY --chmod=755 <<EOF /start.sh
#!/bin/sh
exec "\$@"
EOF
