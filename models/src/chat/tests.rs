use super::*;

fn render(template: &str) -> Result<String> {
    ChatTemplate::new(template.to_owned())?.render(&[Message::text("user", "hello")], true)
}

fn refused(template: &str) -> String {
    let error = render(template).unwrap_err().to_string();
    assert!(!error.contains('\n') && error.len() < 1000, "{error}");
    error
}

#[test]
fn whitespace_is_that_of_hugging_face() {
    let template =
        "{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}\n";
    assert_eq!(render(template).unwrap(), "user\n");
    assert_eq!(render("a\n").unwrap(), "a");
}

#[test]
fn python_methods_work() {
    assert_eq!(
        render("{{ messages[0].content.upper().split('L')[0] }}").unwrap(),
        "HE"
    );
    assert_eq!(
        render("{{ messages[0].get('name', 'none') }}").unwrap(),
        "none"
    );
    assert_eq!(
        render("{% if tools %}a{% else %}b{% endif %}").unwrap(),
        "b"
    );
}

#[test]
fn a_part_is_recognised_by_its_type() {
    let template = "{% for p in messages[0].content %}{% if p['type'] == 'image' %}[I]{% elif 'text' in p %}{{ p.text }}{% endif %}{% endfor %}";
    let content = vec![
        Content::Text("a".into()),
        Content::Image,
        Content::Text("b".into()),
    ];
    let message = Message {
        role: "user".into(),
        content,
    };
    let text = ChatTemplate::new(template.to_owned())
        .unwrap()
        .render(&[message], true)
        .unwrap();
    assert_eq!(text, "a[I]b");
}

#[test]
fn attack_endless_loop() {
    let error = refused(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}",
    );
    assert!(error.contains("fuel"), "{error}");
}

#[test]
fn attack_memory() {
    refused("{{ 'a' * 999999999999 }}");
    refused(
        "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    );
    refused("{% set s = 'a' * 1000000 %}{{ s.replace('a', s) }}");
    refused("{% set s = 'a' * 1000000 %}{{ s.join(s) }}");
    refused("{{ '%999999999d' % 1 }}{{ '{:>9999999999}'.format(1) }}");
    refused("{{ range(99999999999) }}");
}

#[test]
fn attack_recursion() {
    refused("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}");
    refused("{% include 'chat_template' %}");
    refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}");
}

/// Whether or not it is refused, it must come back.
#[test]
fn attack_depth() {
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{'a':", "1", "}"),
        ("-", "1", ""),
        ("not ", "1", ""),
        ("", "1", "+1"),
        ("", "1", "**1"),
        ("", "x", ".a"),
        ("", "x", "[0]"),
        ("", "x", "|d"),
        ("", "x", "()"),
        ("", "1", " if 1 else 1"),
        ("", "1", " and 1"),
        ("", "1", " is d"),
    ] {
        let times = (MAX_TEMPLATE_BYTES - 10) / (open.len() + close.len());
        let (open, close) = (open.repeat(times), close.repeat(times));
        let _ = render(&format!("{{{{ {open}{middle}{close} }}}}"));
    }
    for block in [
        "{% if 1 %}",
        "{% for x in x %}",
        "{% macro x() %}",
        "{% set x %}",
        "{% filter d %}",
    ] {
        refused(&block.repeat(MAX_TEMPLATE_BYTES / block.len()));
    }
    let _ = render(&format!(
        "{{% if 0 %}}{}{{% endif %}}",
        "{% elif 0 %}".repeat(5000)
    ));
    let message = refused(&"{% if true %}".repeat(10_000));
    assert!(message.contains("more than"), "{message}");
}

#[test]
fn attack_nested_values() {
    for end in [
        "",
        "{{ ns.x }}",
        "{{ ns.x == ns.x }}",
        "{{ [ns.x, ns.x] | sort }}",
        "{{ ns.x | string | length }}",
    ] {
        for nest in [
            "[ns.x]",
            "{'a': ns.x}",
            "ns.x | map('upper')",
            "ns.x | batch(1)",
            "[ns.x] + [1]",
        ] {
            let _ = render(&format!(
                "{{% set ns = namespace(x=[]) %}}{{% for i in range(99999) %}}{{% set ns.x = {nest} %}}{{% endfor %}}{end}"
            ));
            let _ = render(&format!(
                "{{% set ns = namespace(x=[]) %}}{{% for i in range(20000) %}}{{% set ns.x = {nest} %}}{{% endfor %}}{end}"
            ));
        }
    }
}

#[test]
fn attack_reading_files() {
    refused("{% include '/etc/passwd' %}");
    refused("{% import '/etc/passwd' as p %}");
}

#[test]
fn what_the_template_refuses_is_told() {
    assert!(refused("{{ raise_exception('only user turns') }}").contains("only user turns"));
    refused("{{ messages | tojson }}");
    refused("{% endfor %}");
}

#[test]
fn the_first_file_wins() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let text = || ChatTemplate::from_dir(dir.path())?.render(&[], false);
    assert!(text().unwrap_err().to_string().contains("no chat template"));
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "rag", "template": "r"}]}"#,
    );
    assert!(text().unwrap_err().to_string().contains("default"));
    write(
        "tokenizer_config.json",
        r#"{"eos_token": {"content": "<e>"}, "chat_template": [{"name": "default", "template": "t{{ eos_token }}"}]}"#,
    );
    assert_eq!(text().unwrap(), "t<e>");
    write(
        "chat_template.json",
        r#"{"chat_template": "j{{ eos_token }}"}"#,
    );
    assert_eq!(text().unwrap(), "j<e>");
    write("chat_template.jinja", "f{{ bos_token }}");
    assert_eq!(text().unwrap(), "f");
}
