FROM mcr.microsoft.com/windows/nanoserver:1809

# The default escape: forward slashes, and JSON with doubled backslashes.
COPY ["app.exe", "C:\\app\\"]
WORKDIR C:/app
ENV MODE production
RUN echo one && \
    echo two
CMD [ 'app.exe' ]
