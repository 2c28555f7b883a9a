//! A certificate authority for one test, and certificates from it, made by the `openssl` program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::paths::{Scratch, give_to_server_user};
use crate::process::run;

/// An authority, a server certificate for 127.0.0.1 and localhost, and a client certificate.
#[derive(Debug)]
pub struct Tls {
    scratch: Scratch,
}

impl Tls {
    /// Makes all of it.
    pub fn make() -> Result<Tls> {
        let scratch = Scratch::new("tls")?;
        let dir = scratch.path().to_path_buf();
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        openssl(&dir, |c| {
            c.args([
                "req",
                "-x509",
                "-days",
                "30",
                "-subj",
                "/CN=belay test CA",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
            ]);
            c.args(new_key)
        })?;
        fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")?;
        for name in ["server", "client"] {
            let (key, csr, pem) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
            openssl(&dir, |c| {
                c.args(["req", "-new", "-subj", &format!("/CN=belay test {name}"), "-keyout", &key, "-out", &csr]);
                c.args(new_key)
            })?;
            openssl(&dir, |c| {
                c.args([
                    "x509",
                    "-req",
                    "-days",
                    "30",
                    "-in",
                    &csr,
                    "-CA",
                    "ca.pem",
                    "-CAkey",
                    "ca.key",
                    "-CAcreateserial",
                ]);
                c.args(["-extfile", "names", "-out", &pem])
            })?;
        }
        give_to_server_user(&dir)?;
        Ok(Tls { scratch })
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.scratch.path().join("ca.pem")
    }
    /// The server's certificate.
    pub fn server_certificate(&self) -> PathBuf {
        self.scratch.path().join("server.pem")
    }
    /// Its key.
    pub fn server_key(&self) -> PathBuf {
        self.scratch.path().join("server.key")
    }
    /// The client's certificate.
    pub fn client_certificate(&self) -> PathBuf {
        self.scratch.path().join("client.pem")
    }
    /// Its key.
    pub fn client_key(&self) -> PathBuf {
        self.scratch.path().join("client.key")
    }
}

fn openssl(dir: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(dir);
    arguments(&mut command);
    run(&mut command).map(|_| ())
}
