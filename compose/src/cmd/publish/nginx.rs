//! A configuration of nginx for a published repository.

use std::path::Path;

/// The text of a `server` block: what never changes may be kept for a year, what moves is asked for each time, and what
/// is the publisher's own is not served.
pub fn config(root: &Path) -> String {
    format!(
        r#"# An OSTree repository that `slipway publish` writes. Include this file in the block `http`.
server {{
    listen 80;
    root {root};
    autoindex off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    # Everything large is compressed already.
    gzip off;
    etag on;

    # Named by what they hold, or by the commits they lead to: they never change.
    location ~ ^/objects/[0-9a-f][0-9a-f]/[0-9a-f]+\.(filez|dirtree|dirmeta|commit)$ {{
        types {{ }}
        default_type application/octet-stream;
        add_header Cache-Control "public, max-age=31536000, immutable";
    }}
    location ~ ^/(deltas|updates)/ {{
        types {{ }}
        default_type application/octet-stream;
        add_header Cache-Control "public, max-age=31536000, immutable";
    }}

    # Signatures are added, refs move: asked for each time, answered with 304 where nothing moved.
    location ~ ^/(objects/[0-9a-f][0-9a-f]/[0-9a-f]+\.commitmeta|delta-indexes/|refs/|summary|summary\.sig|config)
    {{
        types {{ }}
        default_type application/octet-stream;
        add_header Cache-Control "no-cache";
    }}

    location / {{
        return 404;
    }}
}}
"#,
        root = quoted(root)
    )
}

/// A path as nginx reads it.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn nginx_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("a \"repository\"");
        fs::create_dir(&repo).unwrap();
        fs::write(dir.path().join("site"), super::config(&repo)).unwrap();
        let at = dir.path().display();
        let main = format!(
            "pid {at}/pid; error_log {at}/log; events {{}}\nhttp {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; include {at}/site; }}\n"
        );
        fs::write(dir.path().join("main"), main).unwrap();
        let output =
            sys::Cmd::new("/usr/sbin/nginx").args(["-t", "-q", "-c"]).arg(dir.path().join("main")).output().unwrap();
        assert_eq!(output.code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    }
}
