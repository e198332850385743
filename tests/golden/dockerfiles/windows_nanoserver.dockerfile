# escape=`
# A small program on Nano Server.
ARG VERSION=ltsc2022
FROM mcr.microsoft.com/windows/nanoserver:${VERSION}
WORKDIR C:\app
COPY bin\server.exe C:\app\
COPY ["config files/default.ini", "C:\\Program Files\\Server\\"]
ENV DATA=C:\data `
    LOG="C:\data\server.log"
USER ContainerUser
EXPOSE 8080
ENTRYPOINT ["C:\\app\\server.exe", "--data", "C:\\data"]
