# escape=`
# check=skip=JSONArgsRecommended
FROM mcr.microsoft.com/windows/servercore:ltsc2019 AS service
LABEL org.opencontainers.image.title="A service" `
      example.note="It's C:\service"
COPY service\ C:\service\
RUN sc create example binPath= "C:\service\service.exe" start= auto
VOLUME C:\state D:
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=1m30s --retries=3 `
    CMD powershell -command try { `
      $response = iwr http://localhost:80 -UseBasicParsing; `
      if ($response.StatusCode -eq 200) { return 0 } else { return 1 } `
    } catch { return 1 }
CMD ["C:\\service\\monitor.exe", "example"]
