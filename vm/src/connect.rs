//! Joins standard input and output with a TCP connection: what QEMU runs for each connection of a guest→host forward.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// Copies in both directions until both sides have ended; an end on one side is passed on to the other.
pub fn connect(address: &str) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut sending = socket.try_clone()?;
    std::thread::spawn(move || {
        // Not `io::copy`: its buffering on stdout would hold back small answers.
        let _ = copy(&mut std::io::stdin().lock(), &mut sending);
        let _ = sending.shutdown(Shutdown::Write);
    });
    // The server has ended: nothing the guest still says can matter.
    copy(&mut socket, &mut std::io::stdout().lock())
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                to.flush()?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
