# syntax=docker/dockerfile:1
# A static binary on nothing: no shell, no libc, no package to patch.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=v0.1.0
RUN CGO_ENABLED=0 go build -tags grpcnotrace -trimpath \
    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=${VERSION}" \
    -o /manager ./cmd/manager

FROM scratch
COPY --from=build /manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]
