# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022 AS install
ARG PYTHON=3.12.4
ADD https://www.python.org/ftp/python/${PYTHON}/python-${PYTHON}-embed-amd64.zip C:\python.zip
RUN mkdir C:\Python && tar -xf C:\python.zip -C C:\Python

FROM mcr.microsoft.com/windows/nanoserver:ltsc2022
COPY --from=install C:\Python C:\Python
USER ContainerAdministrator
RUN setx /M PATH "C:\Python;%PATH%"
USER ContainerUser
COPY . C:/app/
WORKDIR C:\app
ENTRYPOINT [ "python" ]
CMD [ "main.py" ]
