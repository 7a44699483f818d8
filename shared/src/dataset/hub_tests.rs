//! A cache folder that a test makes, and a hub of one thread.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;

use super::*;

const LIMITS: fn() -> DatasetLimits = DatasetLimits::default;
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// A commit that the hub of these tests gives other files for.
const OTHER: &str = "1123456789abcdef0123456789abcdef01234567";

fn name(text: &str) -> HubName<'_> {
    HubName::of(text).unwrap()
}

/// As the hub's own tools lay it out: blobs, links to them by revision and path, the newest revision of a branch.
fn cache(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("datasets--owner--name");
    let snapshot = repository.join("snapshots").join(COMMIT);
    for part in ["blobs", "refs", &format!("snapshots/{COMMIT}/data")] {
        fs::create_dir_all(repository.join(part)).unwrap();
    }
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for (number, file) in files.iter().enumerate() {
        fs::write(repository.join(format!("blobs/{number}")), "x").unwrap();
        symlink(
            format!("../../../blobs/{number}"),
            snapshot.join("data").join(file),
        )
        .unwrap();
    }
    folder
}

#[test]
fn a_cached_split_needs_no_network() {
    let folder = cache(&[
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "test-00000-of-00001.parquet",
    ]);
    let hub = Hub::offline(folder.path());
    let files = hub
        .files(name("owner/name"), Some("train"), &LIMITS())
        .unwrap();
    assert_eq!(files.len(), 2);
    assert!(files[0].ends_with(format!(
        "snapshots/{COMMIT}/data/train-00000-of-00002.parquet"
    )));
    let message = hub.files(name("owner/name"), None, &LIMITS()).unwrap_err();
    assert!(message.contains("owner/name@test or @train"), "{message}");
    let message = hub.files(name("owner/other"), None, &LIMITS()).unwrap_err();
    assert!(
        message.contains("nothing of it; HF_HUB_OFFLINE forbids"),
        "{message}"
    );
}

#[test]
fn half_a_split_is_none_and_a_lone_test_split_is_not_trained_on() {
    let folder = cache(&["train-00000-of-00002.parquet"]);
    let hub = Hub::offline(folder.path());
    let message = hub
        .files(name("owner/name"), Some("train"), &LIMITS())
        .unwrap_err();
    assert!(message.contains("1 of the 2 files of train"), "{message}");

    let folder = cache(&["test-00000-of-00001.parquet"]);
    let hub = Hub::offline(folder.path());
    let message = hub.files(name("owner/name"), None, &LIMITS()).unwrap_err();
    assert!(
        message.contains("owner/name@test if that is meant"),
        "{message}"
    );
    assert!(
        hub.files(name("owner/name"), Some("test"), &LIMITS())
            .is_ok()
    );
}

#[test]
fn names_of_the_hub() {
    for text in ["hiyouga/geometry3k", "TIGER-Lab/ViRL39K"] {
        assert!(HubName::of(text).is_some(), "{text}");
    }
    for path in [
        "a",
        "/a/b",
        "a/b/c",
        "../b",
        "a/..",
        "a/b.parquet",
        "a/b.jsonl",
        "a b/c",
        "src/x",
        "",
        "/",
    ] {
        assert!(HubName::of(path).is_none(), "{path}");
    }
}

#[test]
fn a_revision_stands_behind_a_colon() {
    let read = |text| HubName::of(text).map(|name: HubName| (name.name, name.revision));
    assert_eq!(read("o/n"), Some(("o/n", "main")));
    assert_eq!(read("o/n:v1.0"), Some(("o/n", "v1.0")));
    assert_eq!(read("o/n:refs/pr/3"), Some(("o/n", "refs/pr/3")));
    for path in ["o:v1", "C:/data", "/o/n:v1", "a/b/c:v1", "a/b.parquet:v1"] {
        assert_eq!(read(path), None, "{path}");
    }
    let hub = Hub::offline(Path::new("/nowhere"));
    let long = format!("o/n:{}", "a".repeat(201));
    for bad in [
        "o/n:",
        "o/n:..",
        "o/n:a/../../b",
        "o/n:/etc",
        "o/n:a//b",
        "o/n:.git",
        "o/n:a b",
        "o/n:a:b",
        "o/n:%2e%2e",
        "o/n:a?b",
        &long,
    ] {
        let message = hub.files(name(bad), None, &LIMITS()).unwrap_err();
        let said = "is no revision: expected a branch, a tag or a commit behind the colon";
        assert!(message.contains(said), "{bad}: {message}");
    }
}

/// A tag that is not the newest state, by its name and by its commit; what is not there is said with what is.
#[test]
fn a_cached_revision_needs_no_network() {
    const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let folder = cache(&["train.parquet"]);
    let repository = folder.path().join("datasets--owner--name");
    let old = repository.join("snapshots").join(OLD);
    fs::create_dir_all(old.join("data")).unwrap();
    fs::write(old.join("data/train.parquet"), "old").unwrap();
    fs::create_dir_all(repository.join("refs/refs/pr")).unwrap();
    fs::write(repository.join("refs/v1.0"), OLD).unwrap();
    fs::write(repository.join("refs/refs/pr/3"), format!("{OLD}\n")).unwrap();
    let hub = Hub::offline(folder.path());
    let find = |text: &str| hub.files(name(text), Some("train"), &LIMITS());
    let wanted = [old.join("data/train.parquet")];
    for revision in ["v1.0", "refs/pr/3", OLD] {
        assert_eq!(find(&format!("owner/name:{revision}")).unwrap(), wanted);
    }
    let newest = find("owner/name").unwrap();
    assert!(newest[0].to_str().unwrap().contains(COMMIT));
    assert_eq!(find("owner/name:main").unwrap(), newest);
    assert_eq!(find(&format!("owner/name:{COMMIT}")).unwrap(), newest);
    for gone in ["v2.0", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"] {
        let message = find(&format!("owner/name:{gone}")).unwrap_err();
        let said = format!(
            "nothing of its revision {gone}; there is {COMMIT}, {OLD}, main, refs/pr/3, v1.0; HF_HUB_OFFLINE forbids"
        );
        assert!(message.contains(&said), "{message}");
    }
    // A ref whose snapshot is gone, and one that leads elsewhere.
    fs::write(repository.join("refs/lost"), "c".repeat(40)).unwrap();
    fs::write(repository.join("refs/evil"), "../../..").unwrap();
    assert!(
        find("owner/name:lost")
            .unwrap_err()
            .contains("nothing of its revision lost")
    );
    assert!(
        find("owner/name:evil")
            .unwrap_err()
            .contains("names no revision")
    );
    let message = hub.files(name("owner/name:v1.0"), Some("test"), &LIMITS());
    assert!(message.unwrap_err().contains("no split \"test\""));
}

/// Answers like the hub until the test ends; counts its answers with a body of a file.
fn serve(files: HashMap<String, Vec<u8>>, etag: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&served);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &files, etag, &counter);
        }
    });
    (endpoint, served)
}

fn answer(mut stream: TcpStream, files: &HashMap<String, Vec<u8>>, etag: &str, served: &AtomicU64) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let mut range = None;
    for line in lines {
        let line = line.unwrap().to_lowercase();
        if let Some(value) = line.strip_prefix("range: bytes=") {
            range = value
                .split('-')
                .next()
                .map(|start| start.parse::<usize>().unwrap());
            if value.ends_with("-0") {
                range = None;
            }
        }
        if line.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap();
    let known = ["main", "v1.0", "refs%2Fpr%2F3", COMMIT, OTHER];
    let file = path
        .strip_prefix("/datasets/owner/name/resolve/")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(revision, _)| known.contains(revision))
        .map(|(_, file)| file);
    let info = path.strip_prefix("/api/datasets/owner/name/revision/");
    let (status, headers, body) = if info.is_some_and(|revision| known.contains(&revision)) {
        let names: Vec<String> = files
            .keys()
            .map(|name| format!("{{\"rfilename\": {name:?}}}"))
            .collect();
        let body = format!(
            "{{\"siblings\": [{}], \"sha\": \"{COMMIT}\"}}",
            names.join(",")
        );
        ("200 OK", String::new(), body.into_bytes())
    } else if let Some(content) = file.and_then(|name| files.get(name)) {
        let tags = format!("ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
        let (start, end) = match range {
            None => (0, 1),
            Some(start) => (start, content.len()),
        };
        served.fetch_add(u64::from(range.is_some()), Ordering::Relaxed);
        let range = format!(
            "Content-Range: bytes {start}-{}/{}\r\n",
            end - 1,
            content.len()
        );
        (
            "206 Partial Content",
            tags + &range,
            content[start..end].to_vec(),
        )
    } else {
        ("404 Not Found", String::new(), Vec::new())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
}

fn online(cache: &Path, endpoint: String) -> Hub {
    Hub {
        endpoint: Some(endpoint),
        is_offline: false,
        ..Hub::offline(cache)
    }
}

#[test]
fn what_is_not_cached_is_fetched_once() {
    let content = vec![7_u8; 100_000];
    let files = HashMap::from([
        (
            "data/train-00000-of-00001.parquet".to_owned(),
            content.clone(),
        ),
        ("data/test-00000-of-00001.parquet".to_owned(), vec![8; 10]),
        ("../../evil.parquet".to_owned(), vec![9; 10]),
    ]);
    let (endpoint, served) = serve(files, "abc123");
    let folder = tempfile::tempdir().unwrap();
    let hub = online(folder.path(), endpoint);
    let message = hub.files(name("owner/name"), None, &LIMITS()).unwrap_err();
    assert!(message.contains("owner/name@test or @train"), "{message}");
    let fetched = hub
        .files(name("owner/name"), Some("train"), &LIMITS())
        .unwrap();
    assert_eq!(fs::read(&fetched[0]).unwrap(), content);
    assert!(
        folder
            .path()
            .join("datasets--owner--name/blobs/abc123")
            .is_file()
    );
    // From now on without a network, and the same paths.
    let again = Hub::offline(folder.path()).files(name("owner/name"), Some("train"), &LIMITS());
    assert_eq!(again.unwrap(), fetched);
    assert_eq!(
        hub.files(name("owner/name"), Some("train"), &LIMITS())
            .unwrap(),
        fetched
    );
    assert_eq!(served.load(Ordering::Relaxed), 1);
    let message = hub
        .files(name("owner/unknown"), None, &LIMITS())
        .unwrap_err();
    assert!(
        message.contains("has no data set of that name"),
        "{message}"
    );
}

/// By tag, by a name with a slash, by commit; each from then on without a network, under its own name.
#[test]
fn a_revision_is_fetched_and_found_again() {
    let files = HashMap::from([("train.parquet".to_owned(), vec![7_u8; 100])]);
    let (endpoint, _) = serve(files, "abc123");
    for revision in ["v1.0", "refs/pr/3", COMMIT] {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("owner/name:{revision}");
        let hub = online(folder.path(), endpoint.clone());
        let fetched = hub.files(name(&text), None, &LIMITS()).unwrap();
        assert_eq!(fs::read(&fetched[0]).unwrap(), [7; 100]);
        assert!(fetched[0].to_str().unwrap().contains(COMMIT));
        let offline = Hub::offline(folder.path());
        assert_eq!(
            offline.files(name(&text), None, &LIMITS()).unwrap(),
            fetched
        );
        // It says nothing of the newest state.
        let message = offline
            .files(name("owner/name"), None, &LIMITS())
            .unwrap_err();
        assert!(
            message.contains("nothing of its revision main; there is"),
            "{message}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let hub = online(folder.path(), endpoint);
    let said = |text| hub.files(name(text), None, &LIMITS()).unwrap_err();
    let message = said("owner/name:v2.0");
    assert!(
        message.contains("has no data set of that name with the revision v2.0"),
        "{message}"
    );
    let other = format!("owner/name:{OTHER}");
    let message = said(&other);
    assert!(
        message.contains("not of the one that was asked for"),
        "{message}"
    );
}

#[test]
fn a_server_does_not_choose_where_files_go() {
    let files = HashMap::from([("train.parquet".to_owned(), vec![1; 10])]);
    let (endpoint, _) = serve(files, "../../../evil");
    let folder = tempfile::tempdir().unwrap();
    let message = online(folder.path(), endpoint)
        .files(name("owner/name"), None, &LIMITS())
        .unwrap_err();
    assert!(message.contains("no usable tag"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_hub_that_is_not_there_or_says_nothing_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut hub = online(folder.path(), endpoint.clone());
    hub.patience = Duration::from_millis(200);
    let message = hub.files(name("owner/name"), None, &LIMITS()).unwrap_err();
    assert!(message.contains("gave no answer for 0 s"), "{message}");
    drop(listener);
    let message = online(folder.path(), endpoint)
        .files(name("owner/name"), None, &LIMITS())
        .unwrap_err();
    assert!(
        message.contains("(HF_ENDPOINT) cannot be reached") && !message.contains('\n'),
        "{message}"
    );
}
