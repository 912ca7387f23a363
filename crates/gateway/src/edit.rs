//! What becomes of a request and its answer on the way.

use std::net::IpAddr;

use selvedge_model::gateway::{Backend, HeaderEdit, PathEdit, Redirect};

use crate::table::Found;
use crate::{Fields, Request, Response};

/// Makes of a request what the backend gets.
pub fn prepare(request: &mut Request, found: &Found<'_>, backend: &Backend, client: IpAddr, scheme: &str) {
    let rule = found.rule;
    request.fields.add("x-forwarded-for", client.to_string());
    // One field, however many proxies there were.
    let all: Vec<&str> = request.fields.elements("x-forwarded-for").collect();
    let all = all.join(", ");
    request.fields.set("x-forwarded-for", all);
    request.fields.set("x-forwarded-proto", scheme);
    request.fields.set("x-forwarded-host", request.authority.clone());
    if let Some(rewrite) = &rule.rewrite {
        if let Some(host) = &rewrite.host {
            request.authority.clone_from(host);
        }
        if let Some(path) = &rewrite.path {
            request.path = other_path(request, path, found.prefix);
        }
    }
    edit(&mut request.fields, &rule.request_headers);
    edit(&mut request.fields, &backend.request_headers);
    // Where a rule sets the host, it means this.
    if let Some(host) = request.fields.text("host").map(str::to_owned) {
        request.authority = host;
        request.fields.remove("host");
    }
}

/// Makes of an answer what the client gets.
pub fn answer(response: &mut Response, found: &Found<'_>, backend: &Backend) {
    edit(&mut response.fields, &backend.response_headers);
    edit(&mut response.fields, &found.rule.response_headers);
}

/// The answer that sends the client elsewhere. `port` is where it asked.
pub fn redirection(request: &Request, redirect: &Redirect, prefix: usize, scheme: &str, port: u16) -> Response {
    let to_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let host = redirect.host.as_deref().unwrap_or(request.host());
    let usual = if to_scheme == "https" { 443 } else { 80 };
    // Another scheme has its own port.
    let port = redirect.port.unwrap_or(if redirect.scheme.is_some() { usual } else { port });
    let port = if port == usual { String::new() } else { format!(":{port}") };
    let path = redirect.path.as_ref().map_or_else(|| request.path.clone(), |path| other_path(request, path, prefix));
    let mut fields = Fields::default();
    fields.add("location", format!("{to_scheme}://{host}{port}{path}"));
    Response { status: redirect.status, fields, upgrade: None }
}

fn edit(fields: &mut Fields, edit: &HeaderEdit) {
    for name in &edit.remove {
        fields.remove(name);
    }
    for field in &edit.set {
        fields.set(&field.name, field.value.clone());
    }
    for field in &edit.add {
        fields.add(&field.name, field.value.clone());
    }
}

/// The path with another prefix or another path, and the query as it was.
fn other_path(request: &Request, edit: &PathEdit, prefix: usize) -> String {
    let (path, query) = request.split_path();
    let rest = path.get(prefix..).unwrap_or_default();
    let mut new = match edit.prefix {
        true if !matches!(rest, "" | "/") => {
            format!("{}/{}", edit.value.trim_end_matches('/'), rest.trim_start_matches('/'))
        }
        true if rest == "/" && !edit.value.ends_with('/') => format!("{}/", edit.value),
        _ => edit.value.clone(),
    };
    if !new.starts_with('/') {
        new.insert(0, '/');
    }
    if !query.is_empty() {
        new.push('?');
        new.push_str(query);
    }
    new
}

#[cfg(test)]
mod tests {
    use selvedge_model::gateway::{Field, GatewayBalance, Rewrite, Rule};

    use super::*;

    fn request(path: &str) -> Request {
        Request { method: "GET".into(), authority: "a.example:8080".into(), path: path.into(), ..Request::default() }
    }

    fn backend() -> Backend {
        Backend {
            namespace: "a".into(),
            service: "b".into(),
            port: 80,
            weight: 1,
            balance: GatewayBalance::RoundRobin,
            http2: false,
            request_headers: HeaderEdit {
                set: vec![Field { name: "X-B".into(), value: "b".into() }],
                ..Default::default()
            },
            response_headers: HeaderEdit::default(),
            invalid: false,
        }
    }

    #[test]
    fn prefixes_are_replaced_as_gateway_api_says() {
        for (path, prefix, value, new) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo", "/foo", "/xyz/", "/xyz/"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar?q=1", "/foo", "/xyz", "/xyz/bar?q=1"),
        ] {
            let edit = PathEdit { prefix: true, value: value.into() };
            assert_eq!(other_path(&request(path), &edit, prefix.len()), new, "{path}: {prefix} to {value}");
        }
        let edit = PathEdit { prefix: false, value: "/all".into() };
        assert_eq!(other_path(&request("/foo/bar?q"), &edit, 4), "/all?q");
    }

    #[test]
    fn a_redirection_keeps_what_is_not_named() {
        let plain = Redirect { scheme: None, host: None, port: None, path: None, status: 302 };
        let to = |redirect: &Redirect| {
            let answer = redirection(&request("/x?y"), redirect, 0, "http", 8080);
            (answer.status, answer.fields.text("location").unwrap().to_owned())
        };
        assert_eq!(to(&plain), (302, "http://a.example:8080/x?y".into()));
        let https = Redirect { scheme: Some("https".into()), status: 301, ..plain.clone() };
        assert_eq!(to(&https), (301, "https://a.example/x?y".into()));
        let all = Redirect {
            host: Some("b.example".into()),
            port: Some(8443),
            path: Some(PathEdit { prefix: false, value: "/z".into() }),
            ..https
        };
        assert_eq!(to(&all).1, "https://b.example:8443/z?y");
        let usual = Redirect { port: Some(80), ..plain };
        assert_eq!(to(&usual).1, "http://a.example/x?y");
    }

    #[test]
    fn the_backend_sees_who_asked_and_what_the_rule_says() {
        let rule = Rule {
            rewrite: Some(Rewrite { host: Some("inner".into()), path: None }),
            request_headers: HeaderEdit {
                set: vec![Field { name: "X-A".into(), value: "set".into() }],
                add: vec![Field { name: "x-c".into(), value: "2".into() }],
                remove: vec!["X-Gone".into()],
            },
            ..Rule::default()
        };
        let mut request = request("/");
        request.fields = [("x-a", &b"old"[..]), ("x-c", b"1"), ("x-gone", b"1"), ("x-forwarded-for", b"203.0.113.9")]
            .into_iter()
            .collect();
        prepare(&mut request, &Found { rule: &rule, prefix: 0 }, &backend(), IpAddr::from([192, 0, 2, 1]), "https");
        let text = |name: &str| request.fields.elements(name).collect::<Vec<_>>().join("|");
        assert_eq!(request.authority, "inner");
        assert_eq!((text("x-a"), text("x-b"), text("x-c")), ("set".into(), "b".into(), "1|2".into()));
        assert_eq!(text("x-gone"), "");
        assert_eq!(text("x-forwarded-for"), "203.0.113.9|192.0.2.1");
        assert_eq!((text("x-forwarded-proto"), text("x-forwarded-host")), ("https".into(), "a.example:8080".into()));
    }
}
