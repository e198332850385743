# syntax=docker/dockerfile:1
ARG NODE_VERSION=20
FROM node:${NODE_VERSION}-alpine AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev

FROM dependencies AS build
COPY . .
RUN npm ci && npm run build

FROM node:${NODE_VERSION}-alpine
ENV NODE_ENV=production PORT=${PORT:-3000}
RUN addgroup -S app && adduser -S -G app app
USER app:app
WORKDIR /app
COPY --from=dependencies --chown=app:app /app/node_modules ./node_modules
COPY --from=build --chown=app:app --chmod=u=rwX,go=rX /app/dist ./dist
EXPOSE $PORT 9229/tcp
HEALTHCHECK CMD ["wget", "-qO-", "http://localhost:3000/health"]
CMD ["node", "dist/main.js"]
