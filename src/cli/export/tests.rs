//! The formats for programs against their descriptions.

use crate::args::{Format, View};
use crate::testing::{Maker, frame, leak, module, shown, view};
use leakscan_report::Kind::{Direct, Indirect};
use leakscan_report::Status::{Confirmed, Suspected};
use leakscan_report::{Frame, Trigger};
use serde_json::Value;

const SCHEMA: &str = include_str!("../../../docs/report.schema.json");

fn maker() -> Maker {
    Maker::new("-")
        .scan(1, Trigger::Interval, |write| {
            module("/usr/bin/server", &[0xab, 0xcd], write);
            let jit = Frame { module: None, offset: 0x7f00_0000_0010, exact: true };
            write.stack(1, [frame(0x11), frame(0x22), jit].into_iter());
            write.leak(&leak(Direct, Suspected, 1, 1, 10));
        })
        .scan(2, Trigger::Signal, |write| {
            write.leak(&leak(Direct, Confirmed, 1, 1, 10));
            write.leak(&leak(Direct, Suspected, 1, 2, 20));
            write.leak(&leak(Indirect, Suspected, 0, 1, 5));
            write.unseen("thread", 1, b"did not stop");
        })
}

fn errors(value: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path)).collect()
}

fn json(view: &View) -> Value {
    serde_json::from_str(&shown(&maker().report(), None, view)).unwrap()
}

#[test]
fn json_is_what_the_schema_says() {
    let value = json(&view(Format::Json));
    assert_eq!(errors(&value), [""; 0]);
    let empty: Value = serde_json::from_str(&shown(&Maker::new("-").report(), None, &view(Format::Json))).unwrap();
    assert_eq!(errors(&empty), [""; 0]);
    // The schema itself must be able to refuse.
    let mut wrong = value.clone();
    wrong["leaks"][0]["kind"] = "dubious".into();
    assert_eq!(errors(&wrong).len(), 1);
    for key in value.as_object().unwrap().keys() {
        let mut lacking = value.clone();
        lacking.as_object_mut().unwrap().remove(key);
        assert_eq!(errors(&lacking).len(), 1, "{key} is not required");
    }
}

#[test]
fn json_holds_the_last_scan_with_its_history() {
    let value = json(&view(Format::Json));
    assert_eq!((value["pid"].as_u64(), value["summary"]["scan"].as_u64()), (Some(4242), Some(2)));
    let leaks = value["leaks"].as_array().unwrap();
    assert_eq!(leaks.len(), 3);
    assert_eq!((leaks[0]["status"].as_str(), leaks[0]["delta_blocks"].as_i64()), (Some("confirmed"), Some(0)));
    assert_eq!((leaks[1]["first_scan"].as_u64(), leaks[1]["delta_bytes"].as_i64()), (Some(1), Some(20)));
    let frames = leaks[0]["frames"].as_array().unwrap();
    assert_eq!((frames[0]["address"].as_str(), frames[0]["build_id"].as_str()), (Some("0x1011"), Some("abcd")));
    assert_eq!((frames[2]["module"].as_str(), frames[2]["address"].as_str()), (None, Some("0x7f0000000010")));
    assert_eq!(value["summary"]["confirmed"]["bytes"].as_u64(), Some(10));
    assert_eq!(value["scans"][1]["unseen"][0]["why"].as_str(), Some("did not stop"));
}

#[test]
fn folded_stacks_begin_at_the_root_and_add_up() {
    let text = shown(&maker().report(), None, &view(Format::Folded));
    assert_eq!(text, "0x7f0000000010;server+0x22;server+0x11 30\n[no stack was recorded] 5\n");
}
