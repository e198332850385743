#syntax = docker/dockerfile:1.7
# ESCAPE = \
from busybox as Odd.1
	run   echo   "a # b"   \  

  # dropped
  && echo c \\
env A="x y" B=it\ is C='$D' E=
# escape=`
Label "a b"=c d="multi \
line"
entrypoint exec top -b
ARG X=1 Y Z="a b"
VOLUME ["/data"]
VOLUME /a /b
USER 1000:1000
CMD
