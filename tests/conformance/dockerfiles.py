"""Dockerfiles in the manner of those that people publish, each with its context and what a container of the image prints."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Example:
    dockerfile: str
    files: dict[str, str] = field(default_factory=dict)
    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    """What follows the image's name."""
    prints: str


EXAMPLES: dict[str, Example] = {
    "static site": Example(
        dockerfile="""\
# syntax=docker/dockerfile:1
FROM busybox:latest
# what is served
COPY site/ /www/
RUN find /www -type d -exec chmod 755 {} + && find /www -type f -exec chmod 644 {} +
EXPOSE 80
HEALTHCHECK --interval=1s CMD wget -q -O- http://127.0.0.1/ || exit 1
CMD ["sh", "-c", "httpd -p 80 -h /www && wget -q -O- http://127.0.0.1/"]
""",
        files={"site/index.html": "<h1>hello</h1>", "site/css/a.css": ""},
        prints="<h1>hello</h1>",
    ),
    "entry point script": Example(
        dockerfile="""\
FROM busybox
ENV APP_MODE=production \\
    # a comment between two lines
    APP_PORT=8080

COPY --chmod=0755 docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["serve"]
""",
        files={
            "docker-entrypoint.sh": '#!/bin/sh\n[ "$1" = serve ] && set -- echo "serving $APP_MODE:$APP_PORT"\nexec "$@"\n'
        },
        prints="serving production:8080",
    ),
    "user of its own": Example(
        dockerfile="""\
FROM busybox
RUN echo 'runner:x:2000:' >> /etc/group && echo 'runner:x:2000:2000::/home/runner:/bin/sh' >> /etc/passwd
WORKDIR /home/runner
COPY --chown=runner:runner . ./app/
USER runner
WORKDIR data
RUN touch made && test "$(stat -c %U made)" = runner
CMD stat -c '%U:%G %a' ../app/config ../data .
""",
        files={"config": ""},
        prints="runner:runner 644\nrunner:runner 755\nrunner:runner 755",
    ),
    "compile and leave the tools behind": Example(
        dockerfile="""\
ARG GO_VERSION=1.0
FROM busybox AS deps
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg cp go.mod /go/pkg/ && wc -l < go.sum

FROM deps AS builder
ARG GO_VERSION
ARG TARGETOS TARGETARCH
COPY . .
RUN --mount=type=cache,target=/go/pkg \\
    test -f /go/pkg/go.mod && \\
    printf '#!/bin/busybox sh\\necho built by %s for %s/%s\\n' "$GO_VERSION" "$TARGETOS" "$TARGETARCH" > /app && chmod +x /app

FROM scratch
COPY --from=builder /app /app
COPY --from=busybox /bin/busybox /bin/busybox
ENTRYPOINT ["/app"]
""",
        files={"go.mod": "module x\n", "go.sum": "1\n2\n", "main.go": "package main\n"},
        build=("--build-arg", "GO_VERSION=1.24"),
        prints="built by 1.24 for linux/amd64",
    ),
    "install and clean up in one step": Example(
        dockerfile="""\
FROM busybox
SHELL ["/bin/sh", "-euxc"]
RUN mkdir -p /var/cache/pkg /opt/pkg; \\
    echo big > /var/cache/pkg/archive; \\
    cp /var/cache/pkg/archive /opt/pkg/installed; \\
    rm -rf /var/cache/pkg
RUN rm /etc/group && ln -s /opt/pkg/installed /usr/bin/pkg
CMD test ! -e /var/cache/pkg && test ! -e /etc/group && cat /usr/bin/pkg
""",
        prints="big",
    ),
    "configuration by heredoc": Example(
        dockerfile="""\
FROM busybox
ARG NAME=world
COPY <<-"RAW" <<-EXPANDED /etc/app/
\t[raw]
\tname = $NAME
\tRAW
\t[expanded]
\tname = ${NAME:-nobody}
\tEXPANDED
RUN <<RUN_END
set -e
cat /etc/app/RAW /etc/app/EXPANDED > /etc/app/all
RUN_END
CMD ["cat", "/etc/app/all"]
""",
        build=("--build-arg", "NAME=me"),
        prints="[raw]\nname = $NAME\n[expanded]\nname = me",
    ),
    "labels and old forms": Example(
        dockerfile="""\
from busybox
maintainer somebody@example.org
env OLD form with spaces
LABEL org.opencontainers.image.title="A title" \\
      org.opencontainers.image.version='1.0'
VOLUME ["/data", "/more data"]
STOPSIGNAL SIGQUIT
onbuild run echo triggered
cmd echo "$OLD"
""",
        prints="form with spaces",
    ),
    "one dependency file before the rest": Example(
        dockerfile="""\
FROM busybox AS base
WORKDIR /app
COPY requirements*.txt ./
RUN cat requirements.txt requirements-dev.txt > installed
COPY . .

FROM base AS test
RUN grep -q pytest installed

FROM base AS final
COPY --from=test /app/installed /app/tested
ENTRYPOINT ["cat"]
CMD ["tested"]
""",
        files={
            "requirements.txt": "flask\n",
            "requirements-dev.txt": "pytest\n",
            "src/app.py": "",
            ".dockerignore": "**/*.pyc\n.git\n",
        },
        run=("installed", "src/app.py"),
        prints="flask\npytest",
    ),
    "root file system from an archive": Example(
        dockerfile="""\
FROM busybox AS rootfs
RUN mkdir -p /out/bin /out/etc && cp /bin/busybox /out/bin/ && ln -s busybox /out/bin/sh && echo made > /out/etc/motd && \\
    tar -C /out -czf /rootfs.tar.gz .
FROM scratch AS unpacked
COPY --from=rootfs /out/ /
FROM unpacked
CMD ["/bin/sh", "-c", "/bin/busybox cat /etc/motd"]
""",
        prints="made",
    ),
    "many stages by one base": Example(
        dockerfile="""\
ARG TAG=latest
FROM busybox:${TAG} AS base
ENV LANG=C.UTF-8
FROM base AS a
RUN echo a > /made
FROM base AS b
RUN echo b > /made
FROM base
COPY --from=a /made /a
COPY --from=1 /made /also-a
COPY --from=b /made /b
RUN --mount=type=bind,from=b,source=/made,target=/tmp/b cat /tmp/b > /c
CMD cat /a /also-a /b /c && echo $LANG
""",
        prints="a\na\nb\nb\nC.UTF-8",
    ),
}
