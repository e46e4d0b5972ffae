# docker build -t hubbub . # for a version of its own: --build-arg VERSION=1.2.3
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X example.com/hubbub.version=$VERSION" -o /hubbub ./cmd/hubbub && mkdir /data

FROM gcr.io/distroless/static:nonroot
COPY --from=build /hubbub /hubbub
COPY --from=build /src/LICENSE /LICENSE
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
# Settings are variables of the environment, so that the health check has them too: HUBBUB_LISTEN, not --listen.
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["/hubbub", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/hubbub"]
CMD ["serve"]
