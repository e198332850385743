FROM node:20 AS Base
MAINTAINER Somebody <somebody@example.com>
ONBUILD ARG MODE
ONBUILD COPY . /app
ONBUILD RUN <<EOF
npm ci
npm test
EOF
ONBUILD HEALTHCHECK --interval=5s CMD ["true"]
