FROM alpine:3.20 AS one
FROM scratch
COPY --from=one --link /etc/os-release /
COPY --parents --exclude=*.md --exclude=**/test ./a/./b/*.c ./x/y /out/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a.tar.gz /
ADD --keep-git-dir=true --chown=1000:1000 https://example.com/repository.git#v1 /source
ADD rootfs.tar.xz /
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=ssh --mount=type=tmpfs,target=/tmp,size=64m --security=sandbox ["/bin/app", "it's"]
