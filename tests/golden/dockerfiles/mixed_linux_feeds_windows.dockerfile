# escape=`
FROM --platform=linux/amd64 golang:1.22 AS build
WORKDIR /src
COPY go.* ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --network=none `
    GOOS=windows go build -o /out/app.exe ./cmd/app

FROM --platform=windows/amd64 mcr.microsoft.com/windows/nanoserver:ltsc2022
COPY --from=build /out/app.exe C:\app.exe
ENTRYPOINT ["C:\\app.exe"]
