//! Sockets and buffers: the only place that knows whether a peer is reached by TCP, a unix socket or TLS.

pub mod packet_io;
pub mod scratch;
pub mod stream;
pub mod tls;
