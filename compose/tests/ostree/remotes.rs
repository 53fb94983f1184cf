//! Remotes over HTTP: both tools pull from one server that writes down what it was asked.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use sys::{Cmd, Output};

use crate::world::{World, everything, lines};

/// A server of a directory that gives nothing to whom it does not like.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    cookie: Option<String>,
    agent: Option<String>,
}

impl Server {
    /// Serves `root`; with `cookie` only where it is sent.
    fn new(root: &Path, cookie: Option<&'static str>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (root, log) = (root.to_owned(), asked.clone());
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (root, log) = (root.clone(), log.clone());
                std::thread::spawn(move || answer(stream.unwrap(), &root, &log, cookie));
            }
        });
        Server { url, asked }
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Answers every request of a connection.
fn answer(stream: TcpStream, root: &Path, log: &Mutex<Vec<Asked>>, wanted: Option<&str>) -> Option<()> {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let path = line.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        let mut asked = Asked { path, cookie: None, agent: None };
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "cookie" => asked.cookie = Some(value.to_owned()),
                "user-agent" => asked.agent = Some(value.to_owned()),
                _ => {}
            }
        }
        let liked = wanted.is_none_or(|wanted| asked.cookie.as_deref().is_some_and(|sent| sent.contains(wanted)));
        let found = fs::File::open(root.join(&asked.path)).ok().filter(|_| liked);
        let mut bytes = Vec::new();
        let read = found.and_then(|mut file| file.read_to_end(&mut bytes).ok());
        let status = if !liked {
            "403 Forbidden"
        } else if read.is_some() {
            "200 OK"
        } else {
            "404 Not Found"
        };
        log.lock().unwrap().push(asked);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", bytes.len());
        writer.write_all(&[head.as_bytes(), &bytes].concat()).ok()?;
    }
}

fn run(world: &World, which: usize, line: &str) -> Output {
    world.tool(which).args(world.args(line)).output().unwrap()
}

fn ok(world: &World, which: usize, line: &str) {
    let output = run(world, which, line);
    assert_eq!(output.code, 0, "{which} {line}: {}", output.errors());
}

/// An archive to pull from, `origin`, with a summary.
fn origin(world: &World) -> PathBuf {
    ok(world, 0, "--repo=origin init --mode=archive");
    ok(world, 0, "--repo=origin pull-local --depth=-1 source");
    ok(world, 0, "--repo=origin summary -u");
    world.path("origin")
}

/// What a pull leaves behind: objects, refs, configuration.
fn left(world: &World, repo: &str) -> std::collections::BTreeMap<String, String> {
    let mut found = everything(&world.path(repo));
    found.retain(|name, _| ["objects/", "refs", "config"].iter().any(|own| name.starts_with(own)));
    found
}

/// The words of the last line that are not about how the tool did it: how much content is new.
fn content(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (before, _) = text.split_once(" content objects")?;
    before.rsplit(' ').next().map(str::to_owned)
}

/// Command lines for a client of `URL`, its remote `r`; as in the other tables.
const PULLS: &str = "
    pull r os/stable
    pull r os/stable && pull r os/stable
    pull r os/stable other
    pull r:os/stable
    pull r none
    pull r
    pull none os/stable
    pull --mirror r os/stable
    pull --mirror r
    pull --depth=1 r os/stable
    pull --depth=-1 r os/stable
    pull --commit-metadata-only r os/stable
    pull --commit-metadata-only --depth=-1 r os/stable
    pull --subpath=/usr r os/stable
    pull --subpath=/usr --subpath=/new r os/stable
    pull --subpath=/none r os/stable
    pull --disable-static-deltas r os/stable
    pull --untrusted r os/stable
    pull --disable-fsync r os/stable
    pull --bareuseronly-files r os/stable
    pull --bareuseronly-files r white
    pull r C1
    pull r os/stable@C1
    pull r os/stable@C1 && pull r os/stable
    pull r os/stable@none
    pull r os/stable && pull -T r os/stable
    pull --http-header=X-Test=1 r os/stable
    pull --append-user-agent=test/1 r os/stable
    pull --update-frequency=100 r os/stable
    pull --network-retries=0 r os/stable
    pull -L origin r os/stable
    pull -L none r os/stable
    pull --url=http://127.0.0.1:1/ --network-retries=0 r os/stable
    pull r os/stable && checkout -U r:os/stable out
    remote refs r
    pull --cache-dir=cache r os/stable
    pull --cache-dir=none r os/stable
    pull --http-trusted r os/stable
    remote refs --cache-dir=cache r
    remote refs --cache-dir=none r
    remote summary --cache-dir=cache r --raw
    + remote refs -r r
    + remote summary --list-metadata-keys r
    + remote summary --print-metadata-key=ostree.summary.last-modified r
    remote summary --raw r
    remote refs none
    remote add b URL os/stable other --no-gpg-verify && pull b
    remote add g URL && pull g os/stable
";

#[test]
fn a_pull_over_http_leaves_what_the_stock_tools_leaves() {
    let world = World::new();
    let server = Server::new(&origin(&world), None);
    fs::create_dir(world.path("cache")).unwrap();
    let mut wrong = Vec::new();
    for (number, lines) in lines(PULLS).enumerate() {
        let outputs = [0, 1].map(|which| {
            let repo = format!("pull{number}-{which}");
            ok(&world, 0, &format!("--repo={repo} init --mode=archive"));
            ok(&world, 0, &format!("--repo={repo} remote add --no-gpg-verify r {}", server.url));
            let mut outputs = Vec::new();
            for line in lines.split(" && ") {
                let line = line.replace("URL", &server.url).replace(" out", &format!(" out{number}-{which}"));
                outputs.push(run(&world, which, &format!("--repo={repo} {line}")));
            }
            (outputs, left(&world, &repo))
        });
        let [(stock, theirs), (ours, mine)] = outputs;
        for (stock, ours) in stock.iter().zip(&ours) {
            let same = match lines.contains("pull") {
                // What comes from a cache is counted otherwise.
                true if lines.contains("-L") => true,
                true => content(stock) == content(ours),
                false => stock.stdout == ours.stdout,
            };
            if stock.code != ours.code || !same {
                let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
                let said = ours.errors();
                wrong.push(format!(
                    "{lines}: {} {:?}, {} {:?}: {said}",
                    stock.code,
                    text(stock),
                    ours.code,
                    text(ours)
                ));
            }
        }
        // What fails may leave objects that nothing needs.
        let counts = |name: &String| stock.iter().all(|output| output.code == 0) || !name.starts_with("objects/");
        for name in theirs.keys().chain(mine.keys()).filter(|name| counts(name)) {
            if theirs.get(name) != mine.get(name) {
                wrong.push(format!("{lines}: {name}: stock {:?}, ours {:?}", theirs.get(name), mine.get(name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let agents: Vec<_> = server.asked().into_iter().filter_map(|asked| asked.agent).collect();
    assert!(agents.iter().filter(|agent| agent.ends_with(" test/1")).count() > 1, "{agents:?}");
}

#[test]
fn cookies_are_kept_and_shown_alike() {
    let world = World::new();
    let jar = |which: usize| {
        let text = fs::read_to_string(world.path(&format!("repo{which}/r.cookies.txt"))).unwrap_or_default();
        // They run in different seconds.
        let line = |line: &str| {
            let mut fields: Vec<&str> = line.split('\t').collect();
            assert!(fields.remove(4).parse::<u64>().unwrap() > 2_500_000_000, "{line}");
            fields.join("\t")
        };
        text.lines().map(line).collect::<Vec<_>>()
    };
    for which in [0, 1] {
        ok(&world, 0, &format!("--repo=repo{which} init --mode=archive"));
    }
    for line in [
        "list-cookies r",
        "delete-cookie r example.org / n",
        "add-cookie r example.org / n v",
        "add-cookie r .example.org /path long-name v=w",
        "add-cookie r example.org / n other",
        "add-cookie r example.net / n v more words",
        "list-cookies r",
        "list-cookies none",
        "delete-cookie r example.org /path n",
        "delete-cookie r example.org / n",
        "list-cookies r",
        "delete-cookie r .example.org /path long-name",
        "add-cookie r example.org / n",
        "add-cookie a/b example.org / n v",
        "delete-cookie r",
        "list-cookies",
    ] {
        // The stock tool's `list-cookies` looks in the directory where it is called.
        let at = |which: usize, cmd: Cmd| {
            let cmd = cmd.dir(world.path(&format!("repo{which}"))).args(["--repo=.", "remote"]);
            cmd.args(line.split(' ')).output().unwrap()
        };
        let [stock, ours] = [0, 1].map(|which| at(which, world.tool(which)));
        let text = |output: &Output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            // Only the day of what lasts for years.
            let line = |line: &str| if line.starts_with("Expires") { line[..19].to_owned() } else { line.to_owned() };
            text.lines().map(line).collect::<Vec<_>>()
        };
        assert_eq!((text(&stock), stock.code), (text(&ours), ours.code), "{line}: {}", ours.errors());
        assert_eq!(jar(0), jar(1), "{line}");
    }
}

#[test]
fn a_pull_sends_the_cookies_that_fit() {
    let world = World::new();
    let root = origin(&world);
    let server = Server::new(root.parent().unwrap(), Some("key=open"));
    let host = "127.0.0.1";
    for which in [0, 1] {
        let repo = format!("--repo=client{which}");
        ok(&world, 0, &format!("{repo} init --mode=archive"));
        ok(&world, 0, &format!("{repo} remote add --no-gpg-verify r {}/origin", server.url));
        let pull = format!("{repo} pull --network-retries=0 r os/stable");
        assert_eq!(run(&world, which, &pull).code, 1);
        for cookie in [
            format!("{host} / key open"),
            format!("{host} /origin/ deep d"),
            format!("{host} /orig not-here x"),
            format!("{host} /other not-here x"),
            "example.org / not-here x".to_owned(),
            ".0.0.1 / not-here x".to_owned(),
        ] {
            ok(&world, which, &format!("{repo} remote add-cookie r {cookie}"));
        }
        let jar = world.path(&format!("client{which}/r.cookies.txt"));
        let mut text = fs::read_to_string(&jar).unwrap();
        text.push_str("# a comment\n127.0.0.1\tFALSE\t/\tFALSE\t1000\tnot-here\tx\n");
        text.push_str("#HttpOnly_127.0.0.1\tFALSE\t/\tFALSE\t0\thttp-only\ta b\n127.0.0.1\tFALSE\t/\tTRUE\t0\ts\tv\n");
        fs::write(&jar, text).unwrap();
        server.asked();
        ok(&world, which, &pull);
        ok(&world, which, &format!("{repo} fsck"));
        let asked = server.asked();
        assert!(asked.len() > 5);
        for asked in asked {
            assert_eq!(
                asked.cookie.as_deref(),
                Some("deep=d; http-only=a b; key=open; s=v"),
                "{which}: {}",
                asked.path
            );
        }
    }
}

/// A metalink of the summary in `origin`.
fn metalink(world: &World, urls: &[&str], change: impl Fn(String) -> String) {
    let summary = fs::read(world.path("origin/summary")).unwrap();
    let hash: String = Sha256::digest(&summary).iter().map(|byte| format!("{byte:02x}")).collect();
    let url = |(at, url): (usize, &&str)| {
        let preference = 100 - at;
        format!("<url protocol=\"http\" type=\"http\" location=\"AQ\" preference=\"{preference}\">{url}</url>\n")
    };
    let urls: String = urls.iter().enumerate().map(url).collect();
    let text = format!(
        "<?xml version=\"1.0\"?>\n<metalink version=\"3.0\">\n <files>\n  <file name=\"summary\">\n\
         <size>{}</size>\n<verification><hash type=\"md5\">0</hash><hash type=\"sha256\">{hash}</hash></verification>\n\
         <resources>\n{urls}</resources>\n</file></files></metalink>\n",
        summary.len()
    );
    fs::write(world.path("metalink.xml"), change(text)).unwrap();
}

#[test]
fn a_metalink_leads_to_the_repository_and_vouches_for_its_summary() {
    let world = World::new();
    let root = origin(&world);
    let server = Server::new(root.parent().unwrap(), None);
    let (good, nowhere) = (format!("{}/origin/summary", server.url), format!("{}/nowhere/summary", server.url));
    let whole = |text: String| text;
    let shorter = |text: String| text.replace("<size>", "<size>1");
    let another = |text: String| text.replace("\"sha256\">", "\"sha256\">0").replace("0</hash><hash", "</hash><hash");
    let wrong_hash = |text: String| {
        let at = text.find("\"sha256\">").unwrap() + 9;
        let digit = if text[at..].starts_with('0') { "1" } else { "0" };
        [&text[..at], digit, &text[at + 1..]].concat()
    };
    let no_file = |text: String| text.replace("\"summary\"", "\"other\"");
    type Change<'a> = &'a dyn Fn(String) -> String;
    let cases: [(&[&str], Change<'_>, i32); 7] = [
        (&[&good], &whole, 0),
        (&[&nowhere, &good], &whole, 0),
        (&[&nowhere], &whole, 1),
        (&[&good], &shorter, 1),
        (&[&good], &another, 1),
        (&[&good], &wrong_hash, 1),
        (&[&good], &no_file, 1),
    ];
    for (number, (urls, change, code)) in cases.into_iter().enumerate() {
        metalink(&world, urls, change);
        let found = [0, 1].map(|which| {
            let repo = format!("meta{number}-{which}");
            ok(&world, 0, &format!("--repo={repo} init --mode=archive"));
            let add = format!("--repo={repo} remote add --no-gpg-verify m metalink={}/metalink.xml", server.url);
            ok(&world, which, &add);
            for line in ["remote show-url m", "remote list -u"] {
                assert_eq!(run(&world, which, &format!("--repo={repo} {line}")).code, 1, "{which} {line}");
            }
            let pull = run(&world, which, &format!("--repo={repo} pull --network-retries=0 m os/stable other"));
            assert_eq!(pull.code, code, "{number} {which}: {}", pull.errors());
            let refs = run(&world, which, &format!("--repo={repo} remote refs m"));
            assert_eq!(refs.code, code, "{number} {which}: {}", refs.errors());
            let found = left(&world, &repo);
            if code == 0 { (found, refs.text()) } else { (Default::default(), String::new()) }
        });
        assert_eq!(found[0], found[1], "{number}");
    }
}

#[test]
fn refs_of_collections_are_found_and_pulled_alike() {
    let world = World::new();
    fs::create_dir(world.path("home")).unwrap();
    fs::set_permissions(world.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
    let gpg = |args: &[&str]| {
        let gpg = world.cmd("gpg").args(["--batch", "--quiet", "--homedir", "home", "--passphrase", ""]);
        gpg.args(["--pinentry-mode=loopback"]).args(args).run().unwrap().stdout
    };
    gpg(&["--quick-generate-key", "Key <key@example.org>", "ed25519", "sign", "never"]);
    fs::write(world.path("key.pub"), gpg(&["--export"])).unwrap();
    let sign = "--gpg-sign=key@example.org --gpg-homedir=home --tree=dir=tree";
    for (repo, times) in [("new", ["@1700000000", "@1700000200"]), ("old", ["@1700000000", "@1700000100"])] {
        ok(&world, 0, &format!("--repo={repo} init --mode=archive --collection-id=org.x.Y"));
        for time in times {
            ok(&world, 0, &format!("--repo={repo} commit -b os/stable --timestamp={time} {sign}"));
        }
        ok(&world, 0, &format!("--repo={repo} commit -b only/{repo} --timestamp=@1700000000 {sign}"));
    }
    ok(&world, 0, "--repo=new commit -b unsigned --timestamp=@1700000000 tree");
    for repo in ["new", "old"] {
        ok(&world, 0, &format!("--repo={repo} summary -u"));
    }
    // Refs of a collection that is not its own.
    ok(&world, 0, "--repo=mirror init --mode=archive");
    ok(&world, 0, "--repo=mirror pull-local new");
    ok(&world, 0, "--repo=mirror refs -c --create=org.z.Z:mirrored only/new");
    ok(&world, 1, "--repo=mirror summary -u");
    fs::create_dir(world.path("cache")).unwrap();
    let server = Server::new(&world.path(""), None);
    let mut wrong = Vec::new();
    for (number, line) in [
        "org.x.Y os/stable",
        "org.x.Y os/stable org.x.Y only/old org.x.Y only/new",
        "org.x.Y os/stable org.x.Z os/stable org.x.Y none",
        "org.x.Y none",
        "org.z.Z mirrored",
        "--finders=config org.x.Y os/stable",
        "--finders=mount org.x.Y os/stable",
        "--finders=config,mount org.x.Y only/old",
        "--finders=config,config org.x.Y os/stable",
        "--finders=none org.x.Y os/stable",
        "--finders= org.x.Y os/stable",
        "--mirror org.x.Y os/stable",
        "--pull org.x.Y os/stable",
        "--pull --mirror org.x.Y os/stable org.x.Y only/old",
        "--pull --disable-fsync org.x.Y os/stable org.x.Y only/new org.x.Y none",
        "--pull org.x.Y unsigned",
        "--pull org.x.Y none",
        "--cache-dir=cache org.x.Y os/stable",
        "--cache-dir=none org.x.Y os/stable",
        "org.x.Y",
        "org.x.Y os/stable org.x.Y",
        "nodots os/stable",
        "org.x.Y ../x",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let both = [0, 1].map(|which| {
            let repo = format!("find{number}-{which}");
            ok(&world, 0, &format!("--repo={repo} init --mode=archive"));
            for (name, url, id) in [
                ("http", format!("{}/new", server.url), "org.x.Y"),
                ("file", format!("file://{}", world.path("old").display()), "org.x.Y"),
                ("mirror", format!("{}/mirror", server.url), "org.z.Z"),
                ("gone", format!("{}/gone", server.url), "org.x.Y"),
                ("none", format!("{}/new", server.url), ""),
            ] {
                let add = format!("--repo={repo} remote add --gpg-import=key.pub {name} {url}");
                let id = if id.is_empty() { String::new() } else { format!(" --collection-id={id}") };
                ok(&world, 0, &format!("{add}{id}"));
            }
            let output = run(&world, which, &format!("--repo={repo} find-remotes {line}"));
            // Refs come in the order of a hash table there.
            let mut text: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
            text.sort();
            let left = if output.code == 0 { left(&world, &repo) } else { Default::default() };
            (text, output.code, left, output.errors())
        });
        let [stock, ours] = both;
        if (&stock.0, stock.1) != (&ours.0, ours.1) {
            wrong.push(format!("{line}: {} {:#?}, {} {:#?}: {}", stock.1, stock.0, ours.1, ours.0, ours.3));
        }
        for name in stock.2.keys().chain(ours.2.keys()).filter(|name| stock.2.get(*name) != ours.2.get(*name)) {
            wrong.push(format!("{line}: {name}: stock {:?}, ours {:?}", stock.2.get(name), ours.2.get(name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
