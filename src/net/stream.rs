//! A stream to a client or a node: TCP, unix socket, or either of them under TLS.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A plain socket.
#[derive(Debug)]
pub enum Plain {
    /// TCP, with TCP_NODELAY set by whoever made it.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

/// A connection to a peer.
#[derive(Debug)]
pub enum Stream {
    /// Nothing between us and the socket.
    Plain(Plain),
    /// TLS over the socket; boxed because most sessions have none and idle clients should be small.
    Tls(Box<TlsStream<Plain>>),
}

/// What a look at a peer that should be silent showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing has arrived.
    Silent,
    /// Bytes are waiting to be read.
    Data,
    /// The peer has closed, or the connection is broken.
    Closed,
}

impl Plain {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Plain::Tcp(s) => s.poll_read_ready(cx),
            Plain::Unix(s) => s.poll_read_ready(cx),
        }
    }

    fn peek_now(&self) -> io::Result<usize> {
        let mut byte = [std::mem::MaybeUninit::<u8>::uninit(); 1];
        match self {
            Plain::Tcp(s) => s.try_io(Interest::READABLE, || SockRef::from(s).peek(&mut byte)),
            Plain::Unix(s) => s.try_io(Interest::READABLE, || SockRef::from(s).peek(&mut byte)),
        }
    }

    fn poll_silence(&self, cx: &mut Context<'_>) -> Poll<Silence> {
        loop {
            match self.poll_readable(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Silence::Closed),
                Poll::Ready(Ok(())) => match self.peek_now() {
                    Ok(0) => return Poll::Ready(Silence::Closed),
                    Ok(_) => return Poll::Ready(Silence::Data),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => return Poll::Ready(Silence::Closed),
                },
            }
        }
    }
}

impl Plain {
    fn is_read_closed(&self, cx: &mut Context<'_>) -> bool {
        let closed = |ready: Poll<io::Result<tokio::io::Ready>>| match ready {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        match self {
            Plain::Tcp(s) => closed(pin!(s.ready(Interest::READABLE)).poll(cx)),
            Plain::Unix(s) => closed(pin!(s.ready(Interest::READABLE)).poll(cx)),
        }
    }
}

impl Stream {
    /// The socket below TLS, if any.
    pub fn plain(&self) -> &Plain {
        match self {
            Stream::Plain(p) => p,
            Stream::Tls(t) => match t.as_ref() {
                TlsStream::Client(c) => c.get_ref().0,
                TlsStream::Server(s) => s.get_ref().0,
            },
        }
    }

    /// Whether bytes travel encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Whether the peer can be trusted with a clear-text password: TLS or a unix socket.
    pub fn is_confidential(&self) -> bool {
        self.is_tls() || matches!(self.plain(), Plain::Unix(_))
    }

    /// Watches a peer that should be silent: ready when it sends or closes, without consuming what it sent.
    /// Under TLS the encrypted bytes are looked at, so an alert counts as data.
    pub fn poll_silence(&self, cx: &mut Context<'_>) -> Poll<Silence> {
        self.plain().poll_silence(cx)
    }

    /// Whether the peer has closed behind what it sent (COM_QUIT, a TLS alert). Costs no system call, and does not wake when it happens.
    pub fn is_read_closed(&self, cx: &mut Context<'_>) -> bool {
        self.plain().is_read_closed(cx)
    }

    /// Ready when a read is worth trying. Under TLS always: decrypted bytes may wait inside.
    pub fn poll_maybe_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Plain(plain) => plain.poll_readable(cx).map(|_| ()),
            Stream::Tls(_) => Poll::Ready(()),
        }
    }

    /// The same, at once: what the peer has done by now.
    pub fn silence_now(&self) -> Silence {
        let mut byte = [std::mem::MaybeUninit::<u8>::uninit(); 1];
        let peeked = match self.plain() {
            Plain::Tcp(s) => SockRef::from(s).peek(&mut byte),
            Plain::Unix(s) => SockRef::from(s).peek(&mut byte),
        };
        match peeked {
            Ok(0) => Silence::Closed,
            Ok(_) => Silence::Data,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Silence::Silent,
            Err(_) => Silence::Closed,
        }
    }
}

macro_rules! delegate {
    ($self:ident, $s:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain(Plain::Tcp(s)) => {
                let $s = Pin::new(s);
                $call
            }
            Stream::Plain(Plain::Unix(s)) => {
                let $s = Pin::new(s);
                $call
            }
            Stream::Tls(s) => {
                let $s = Pin::new(s.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => s.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, s => s.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => s.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => s.poll_shutdown(cx))
    }
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Plain::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Plain::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Plain::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Plain::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Plain::Tcp(s) => Pin::new(s).poll_flush(cx),
            Plain::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Plain::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Plain::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
