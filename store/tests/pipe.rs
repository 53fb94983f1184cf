//! Requests that are sent ahead, and servers that do not take them as they should.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{World, content, healthy, text};
use store::Mode;
use store::pull::ways::Allowed;
use store::pull::{self, Network, Options, PullError};

/// A server of files below `root`; `talk` has each connection.
fn server(world: &World, talk: impl Fn(TcpStream, &Server) + Send + Sync + 'static) -> (String, Arc<Server>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = Arc::new(Server { root: world.origin.path().to_owned(), connections: AtomicUsize::new(0) });
    let (talk, shared) = (Arc::new(talk), server.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (talk, server) = (talk.clone(), shared.clone());
            server.connections.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || talk(client, &server));
        }
    });
    (url, server)
}

struct Server {
    root: std::path::PathBuf,
    connections: AtomicUsize,
}

impl Server {
    /// The whole answer to a request.
    fn answer(&self, path: &str) -> Vec<u8> {
        match std::fs::read(self.root.join(path)) {
            Ok(body) => {
                [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(), body].concat()
            }
            Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone".to_vec(),
        }
    }
}

/// The path that the next request asks for; `None` at the end of the connection.
fn request(client: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while client.read_line(&mut head).ok()? > 2 {}
    Some(head.strip_prefix("GET /")?.split(' ').next()?.to_owned())
}

fn options(world: &World, url: &str, connections: usize) -> Options<'static> {
    let network = Network { retries: 2, stall_seconds: 20, connections, ..Network::default() };
    Options { network, ways: Allowed::OBJECTS, ..world.options(url) }
}

/// Everything comes, and nothing else.
fn comes(world: &World, url: &str) {
    let target = world.target("user", Mode::BareUser);
    let outcome = pull::http(&options(world, url, 2), &target).unwrap_or_else(|error| panic!("{}", text(&error)));
    assert_eq!(content(&target, &outcome.commit), content(&world.origin, &outcome.commit));
    healthy(&target);
}

#[test]
fn several_requests_are_on_their_way_before_the_first_is_answered() {
    let world = World::new();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let (url, server) = server(&world, move |client, server| {
        let mut reader = BufReader::with_capacity(64 << 10, client.try_clone().unwrap());
        let mut waiting = Vec::new();
        while let Some(path) = request(&mut reader) {
            waiting.push(path);
            // Answers nothing as long as more is coming.
            client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let more = !reader.buffer().is_empty() || reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
            client.set_read_timeout(None).unwrap();
            if !more || waiting.len() == 64 {
                seen.fetch_max(waiting.len(), Ordering::Relaxed);
                waiting.drain(..).for_each(|path| (&client).write_all(&server.answer(&path)).unwrap());
            }
        }
    });
    comes(&world, &url);
    assert!(most.load(Ordering::Relaxed) >= 8, "at most {most:?} at once");
    // One for the ref and the commit, and two threads that have one after the other for directories and for files.
    assert!(server.connections.load(Ordering::Relaxed) <= 5, "{:?} connections", server.connections);
}

#[test]
fn a_server_that_closes_after_so_many_answers_is_asked_again() {
    let world = World::new();
    let (url, server) = server(&world, |client, server| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        for _ in 0..20 {
            let Some(path) = request(&mut reader) else { return };
            (&client).write_all(&server.answer(&path)).unwrap();
        }
        // What was asked besides is read, or the answers would be lost with it.
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    comes(&world, &url);
    let connections = server.connections.load(Ordering::Relaxed);
    assert!(connections <= 20, "{connections} connections for some 90 objects");
}

#[test]
fn a_server_that_gives_one_answer_for_each_connection_is_asked_for_one_file_at_a_time() {
    let world = World::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let (url, _) = server(&world, move |client, server| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let Some(path) = request(&mut reader) else { return };
        count.fetch_add(1, Ordering::Relaxed);
        let answer = server.answer(&path);
        (&client).write_all(&[b"HTTP/1.0", answer.strip_prefix(b"HTTP/1.1").unwrap()].concat()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    comes(&world, &url);
    // Objects, ref and what else is looked for; only what was first on a pipe may have been asked for twice.
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 110, "{asked} requests for some 90 objects");
}

#[test]
fn bodies_in_chunks_come_too() {
    let world = World::new();
    let (url, _) = server(&world, |client, server| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        while let Some(path) = request(&mut reader) {
            let answer = match std::fs::read(server.root.join(&path)) {
                Ok(body) => {
                    let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                    for chunk in body.chunks(100_000) {
                        answer.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                    }
                    answer.extend(b"0\r\n\r\n");
                    answer
                }
                Err(_) => server.answer(&path),
            };
            if (&client).write_all(&answer).is_err() {
                return;
            }
        }
    });
    comes(&world, &url);
}

#[test]
fn a_connection_cut_in_the_middle_of_an_answer_goes_on_at_the_byte() {
    let world = World::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let upstream = world.serve(store::serve::Options::default());
    let to = upstream.url().strip_prefix("http://").unwrap().to_owned();
    let (url, _) = server(&world, move |client, _| {
        let upstream = TcpStream::connect(&to).unwrap();
        let (mut up, mut down) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut down, &mut up));
        let passed = std::io::copy(&mut (&upstream).take(700_000), &mut &client).unwrap_or(0);
        count.fetch_add(passed as usize, Ordering::Relaxed);
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = upstream.shutdown(std::net::Shutdown::Both);
    });
    let target = world.target("user", Mode::BareUser);
    let outcome = pull::http(&options(&world, &url, 1), &target).unwrap_or_else(|error| panic!("{}", text(&error)));
    assert_eq!(content(&target, &outcome.commit), content(&world.origin, &outcome.commit));
    let sent = sent.load(Ordering::Relaxed) as u64;
    assert!(sent < outcome.bytes + (2 << 20), "{sent} bytes were sent for {}", outcome.bytes);
}

#[test]
fn swapped_answers_are_refused() {
    let world = World::new();
    let (url, _) = server(&world, |client, server| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let mut held: Option<String> = None;
        while let Some(path) = request(&mut reader) {
            if !path.ends_with(".filez") || reader.buffer().is_empty() && held.is_none() {
                (&client).write_all(&server.answer(&path)).unwrap();
                continue;
            }
            match held.take() {
                None => held = Some(path),
                Some(first) => {
                    (&client).write_all(&server.answer(&path)).unwrap();
                    (&client).write_all(&server.answer(&first)).unwrap();
                }
            }
        }
    });
    let target = world.target("user", Mode::BareUser);
    match pull::http(&options(&world, &url, 2), &target) {
        Err(PullError::Mismatch { .. }) => {}
        other => panic!("{other:?}"),
    }
    healthy(&target);
    assert!(target.remote_refs().unwrap().is_empty());
}

#[test]
fn a_head_without_end_is_an_error() {
    let world = World::new();
    let (url, _) = server(&world, |client, server| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        while let Some(path) = request(&mut reader) {
            if path.ends_with(".filez") {
                let _ = (&client).write_all(b"HTTP/1.1 200 OK\r\nX-Long: ");
                while (&client).write_all(&[b'a'; 8192]).is_ok() {}
                return;
            }
            (&client).write_all(&server.answer(&path)).unwrap();
        }
    });
    let target = world.target("user", Mode::BareUser);
    let mut options = options(&world, &url, 2);
    options.network.retries = 0;
    assert!(matches!(pull::http(&options, &target), Err(PullError::Fetch { .. })));
    healthy(&target);
}

#[test]
fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    let world = World::new();
    let refused = Arc::new(std::sync::Mutex::new(None));
    let told = refused.clone();
    let (url, _) = server(&world, move |client, server| {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        while let Some(path) = request(&mut reader) {
            let mut refused = told.lock().unwrap();
            if path.ends_with(".filez") && refused.is_none() {
                *refused = Some((path, std::time::Instant::now(), None));
                let answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                (&client).write_all(answer).unwrap();
                return;
            }
            if let Some((first, at, again)) = refused.as_mut().filter(|(first, ..)| *first == path) {
                // The pipe gave up; the first request that waits for its turn is refused once more.
                if again.is_none() {
                    *again = Some(at.elapsed());
                    let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
                    (&client).write_all(answer.as_bytes()).unwrap();
                    (*at, *first) = (std::time::Instant::now(), path);
                    continue;
                }
                *again = Some(at.elapsed());
            }
            drop(refused);
            (&client).write_all(&server.answer(&path)).unwrap();
        }
    });
    comes(&world, &url);
    let (_, _, waited) = refused.lock().unwrap().take().unwrap();
    assert!(waited.unwrap() >= Duration::from_secs(2), "{waited:?}");
}
