// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Package serving serves a manager's endpoints over HTTPS, with the flags that operators
// know from kube-controller-manager. The server is that of net/http. What client
// certificates, tokens and the headers of a front proxy mean is decided by
// k8s.io/apiserver; its own server is not used, because that works while nobody asks.
//
// The order of calls: Defaults, AddFlags, then Listen, which binds the port
// and asks nobody anything, then Serve with the handler that Routes makes.
//
// # Who may see what
//
// Open paths (--authorization-always-allow-paths; by default /livez, /readyz and
// /healthz with what is below them) are answered to everybody, whatever credentials
// come with the request, and never wait for the API server. Every other path needs a
// bearer token or a client certificate (401 without) whose user may use the method,
// in lower case, as a verb on the path as a nonResourceURL (403 without):
//
//	kind: ClusterRole
//	rules:
//	- nonResourceURLs: ["/metrics", "/controllers"]
//	  verbs: ["get"]
//
// The manager itself needs the ClusterRole system:auth-delegator (create tokenreviews
// and subjectaccessreviews), and for client certificates to get the ConfigMap
// kube-system/extension-apiserver-authentication, which tells the cluster's CA of them;
// --client-ca-file names another, and --authentication-skip-lookup=true accepts none.
// Request headers of a front proxy are believed only with --requestheader-client-ca-file.
//
// # Guarantees
//
//   - Nothing is asked of the API server before somebody asks for a path that is not
//     open. Answers are cached for 10 s: a token that is revoked, and a permission that
//     is withdrawn, count for no longer. At most 1024 of a kind are kept, by a digest of
//     the question. Who asks the same at a time waits for one review.
//   - Reviews have a rate limiter of their own, never the manager's. When the API
//     server cannot be reached, requests that need it get 503 within 10 s: 5 s for each of the two reviews.
//   - At most 64 requests to paths that are not open run at a time; more get 429.
//   - Changed files of certificates and CAs count within a second. A file that cannot be
//     used is logged, and its last content counts on.
//   - A server that nobody connects to uses no CPU time.
//   - A refused request is not logged as an error, and that the API server cannot be asked
//     once in 10 s, so strangers cannot fill the log. Handlers see no Authorization header.
//   - A path that is not in its plain form ("/livez/../metrics") gets 400, so that what
//     is decided upon is what is served.
//   - A request may have 64 KiB of body, and 128 KiB with its headers; a connection
//     that brings more before it is answered is cut. At most 1000 connections are open at
//     a time; more are closed at once. The handshake, headers and a body must come within
//     32 s each, and a connection without a request ends after 90 s.
//
// It does not protect what an open path shows, and who opens 1000 connections again and
// again keeps others out: a NetworkPolicy says who may connect.
package serving
