//! Lines as HAProxy writes them, and lines that it does not.

use proptest::prelude::*;
use wal::PartitionName;

use super::*;

/// The example of the manual, with captures.
const MANUAL: &str = "Feb  6 12:14:14 localhost haproxy[14389]: 10.0.1.2:33317 \
    [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 \
    {1wt.eu|Mozilla/5.0 (X11; #7Bodd#7D)} {17} \
    \"GET /tenants/42/index%20one.html?u=a%2Fb HTTP/1.1\"";

fn rules(key: &str) -> Rules {
    let field = |text| Field::parse(text).expect("a field");
    Rules {
        key: field(key),
        user: Some(field("query:u")),
        region: Some(field("backend")),
        partition: Some(field("path:2")),
        partition_suffix: ".db".to_owned(),
        task: None,
    }
}

fn read(rules: &Rules, line: &str) -> Result<Option<Access>, Malformed> {
    rules.read(line.as_bytes())
}

#[test]
fn the_line_of_the_manual_is_read_by_the_rules() {
    let access = read(&rules("path"), MANUAL).expect("right").expect("a key");
    assert_eq!(access.key, "/tenants/42/index one.html");
    assert_eq!(access.user.as_deref(), Some("a/b"));
    assert_eq!(access.region.as_deref(), Some("static"));
    assert_eq!(access.partition, PartitionName::new("42.db"));
    assert_eq!((access.bytes, access.time), (2750, None));
}

#[test]
fn every_field_can_be_the_key() {
    for (field, key) in [
        ("path:1", Some("tenants")),
        ("path:9", None),
        ("query:u", Some("a/b")),
        ("query:nobody", None),
        ("captured:1", Some("1wt.eu")),
        ("captured:2", Some("Mozilla/5.0 (X11; {odd})")),
        ("captured:3", Some("17")),
        ("captured:4", None),
        ("client", Some("10.0.1.2")),
        ("frontend", Some("http-in")),
        ("backend", Some("static")),
        ("server", Some("srv1")),
        ("method", Some("GET")),
    ] {
        let access = read(&rules(field), MANUAL).expect("right");
        assert_eq!(access.map(|access| access.key).as_deref(), key, "{field}");
        assert_eq!(Field::parse(field).expect("read").to_string(), field);
    }
    for field in [
        "",
        "path:0",
        "path:x",
        "query:",
        "captured:65",
        "header:x",
        "Path",
    ] {
        assert_eq!(Field::parse(field), None, "{field}");
    }
}

#[test]
fn headers_of_syslog_are_passed_over() {
    let (_, bare) = MANUAL.split_once("]: ").expect("a header");
    for header in [
        "",
        "<134>Nov 22 10:22:38 haproxy[123]: ",
        "<134>1 2026-11-22T10:22:38.123456+00:00 host haproxy 123 - - ",
        "2026-11-22T10:22:38.123456+00:00 host haproxy[123]: ",
    ] {
        let access = read(&rules("client"), &format!("{header}{bare}")).expect(header);
        assert_eq!(access.expect("a key").key, "10.0.1.2");
    }
}

#[test]
fn what_varies_between_lines_is_read() {
    let line = |serving: &str, bytes: &str, captures: &str, request: &str| {
        format!(
            "::ffff:10.0.0.1:40000 [22/Nov/2026:10:22:38.123] fe~ {serving} 0/0/1/2/3 200 {bytes} \
             - - ---- 1/1/0/0/0 0/0 {captures}\"{request}\""
        )
    };
    let rules = Rules {
        region: Field::parse("server"),
        ..Rules::default()
    };
    let right = |text: String| read(&rules, &text).expect("right").expect("a key");
    let early = right(line("be/s1", "+12", "", "GET http://h/x?y HTTP/1.1"));
    assert_eq!((early.key.as_str(), early.bytes), ("/x", 12));
    let refused = right(line("fe/<NOSRV>", "0", "{}", "PUT / HTTP/2.0"));
    assert_eq!((refused.key.as_str(), refused.region), ("/", None));
    // The server closed the log's quotes or not: what comes after them does not matter.
    let tls = right(line("be/s1", "1", "", "GET /a HTTP/1.1") + " 0/0/0/0/0 -/TLSv1.3");
    assert_eq!(tls.key, "/a");
    let client = Rules {
        key: Field::Client,
        ..rules.clone()
    };
    let six = read(&client, &line("be/s", "1", "", "GET / HTTP/1.1")).expect("right");
    assert_eq!(six.expect("a key").key, "::ffff:10.0.0.1");
    let bad = read(&rules, &line("be/s", "1", "", "<BADREQ>"));
    assert_eq!(bad, Err(Malformed::Haproxy("the request")));
}

#[test]
fn other_lines_are_malformed() {
    for line in [
        "",
        "Nov 22 10:22:38 host haproxy[1]: Proxy fe started.",
        "Nov 22 10:22:38 host haproxy[1]: 10.0.0.1:1 [22/Nov/2026:10:22:38.1] fe be/s 0/0/5 212 -- \
         0/0/0/0/0 0/0",
        "Connect from 10.0.0.1:5 to 10.0.0.2:80 (fe/HTTP)",
        "\" [//] \"",
    ] {
        assert!(read(&Rules::default(), line).is_err(), "{line}");
    }
    let cut = &MANUAL[..MANUAL.len() - 12];
    assert!(
        read(&Rules::default(), cut).is_err(),
        "a line that was cut off"
    );
    let odd = MANUAL.replace("/42/", "/%2E%2E/");
    assert!(
        matches!(read(&rules("path"), &odd), Ok(Some(_))),
        "...db is a name"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_stumble(text in "\\PC*", cut in 0..400_usize, extra in "\\PC*") {
        // What it answers is the other tests' matter.
        let _ = read(&rules("captured:2"), &text);
        let cut = MANUAL.floor_char_boundary(cut.min(MANUAL.len()));
        let _ = read(&rules("path"), &format!("{}{extra}{}", &MANUAL[..cut], &MANUAL[cut..]));
    }
}
