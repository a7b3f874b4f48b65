//! The table's rule for what is best, and where its numbers come from.

use super::*;

fn cell(value: f64, low: f64, high: f64) -> Cell {
    Cell { value, interval: Some((low, high)) }
}

#[test]
fn the_best_is_marked_where_its_interval_lies_apart_from_all_others() {
    let (a, b) = ((3, cell(1.0, 0.9, 1.1)), (5, cell(1.5, 1.2, 1.8)));
    assert_eq!(best(&[a, b], false), Some(3));
    assert_eq!(best(&[a, b], true), Some(5));
    // The order of the rows says nothing.
    assert_eq!(best(&[b, a], false), Some(3));
    // Intervals that touch or overlap, of one other model already, leave the question open, whatever the values.
    assert_eq!(best(&[a, (5, cell(1.5, 1.1, 1.8))], false), None);
    assert_eq!(best(&[a, b, (6, cell(9.0, 1.05, 20.0))], false), None);
    assert_eq!(best(&[(3, cell(0.5, 0.4, 0.6)), (4, cell(0.7, 0.59, 0.8))], true), None);
    // Nothing without an interval is best, nor better than something without one; nor is one alone the best.
    let bare = |value| Cell { value, interval: None };
    assert_eq!(best(&[(3, bare(0.0)), b], false), None);
    assert_eq!(best(&[a, (5, bare(100.0))], false), None);
    assert_eq!(best(&[a], false), None);
    assert_eq!(best(&[], false), None);
}

fn report() -> Value {
    let spread = |median: f64| json!({"median": median});
    let estimate = |value: f64| json!({"value": value, "low": value - 0.1, "high": value + 0.1});
    json!({
        "references": ["real, phases randomised", "real, channels shifted"],
        "sections": {
            "spectrum": {
                "generated": ["a, seed 1", "a, seed 2", "b"],
                "measures": {"log_distance": {
                    "ceiling": spread(0.1), "generated": [spread(0.2), spread(0.4), spread(0.9)],
                    "references": [spread(0.11), spread(0.12)],
                    "intervals": {
                        "ceiling": estimate(0.1), "generated": [estimate(0.2), estimate(0.4), estimate(0.9)],
                        "references": [estimate(0.11), estimate(0.12)],
                    },
                }},
            },
            "hmm": {
                "generated": ["a, seed 1", "a, seed 2", "b", "real, phases randomised", "real, channels shifted"],
                "measures": {"switching": {
                    "ceiling": spread(1.0), "generated": [spread(2.0), spread(4.0), spread(5.0), spread(6.0), spread(7.0)],
                }},
            },
            "evoked": {"compared_with_real_first_half": [
                {"label": "real, other trials", "correlation_pooled": estimate(0.9)},
                {"label": "real, at random times", "correlation_pooled": estimate(0.03)},
                // All trials together are the same under any conditions: no floor.
                {"label": "real, conditions shuffled", "correlation_pooled": estimate(0.9)},
                {"label": "b", "correlation_pooled": estimate(0.5), "correlation_condition_specific": null},
            ]},
        },
    })
}

fn entrants() -> Vec<Entrant> {
    let scores = |nats: f64| {
        json!({"model": {"nats": nats, "nats_standard_error": 0.01},
               "anchors": [{"name": "unigram", "nats": 5.0, "nats_standard_error": 0.01}]})
    };
    let entrant = |name: &str, labels: &[&str], nats: f64| Entrant {
        name: name.into(),
        labels: labels.iter().map(|label| label.to_string()).collect(),
        scores: labels.iter().map(|_| scores(nats)).collect(),
        same_levels: true,
        failures: vec![],
    };
    let failed = Entrant { failures: vec!["it was <too> large".into()], ..entrant("c", &[], 0.0) };
    let other = Entrant { same_levels: false, ..entrant("d", &["d"], 1.0) };
    vec![entrant("a", &["a, seed 1", "a, seed 2"], 4.0), entrant("b", &["b"], 4.5), failed, other]
}

#[test]
fn numbers_come_from_the_report_and_seeds_are_taken_together() {
    let table = Table::new(&report(), &entrants());
    let keys: Vec<&str> = table.columns.iter().map(|column| column.key).collect();
    assert_eq!(keys, ["nats", "spectrum", "state_switching", "evoked"]);
    let row = |label: &str| table.rows.iter().find(|row| row.label == label).unwrap();
    let values = |label: &str| row(label).cells.iter().map(|cell| cell.map(|cell| cell.value)).collect::<Vec<_>>();
    assert_eq!(values("real against real"), [None, Some(0.1), Some(1.0), Some(0.9)]);
    assert_eq!(values("b"), [Some(4.5), Some(0.9), Some(5.0), Some(0.5)]);
    assert_eq!(values("real, phases randomised"), [None, Some(0.11), Some(6.0), None]);
    assert_eq!(values("real, channels shifted"), [None, Some(0.12), Some(7.0), None]);
    assert_eq!(values("real, at random times"), [None, None, None, Some(0.03)]);
    assert!(!table.rows.iter().any(|row| row.label == "real, conditions shuffled"));
    assert_eq!(values("how often each level occurs"), [Some(5.0), None, None, None]);
    assert_eq!(row("c").cells, [None; 4]);
    let a = row("a").cells[1].unwrap();
    let (low, high) = a.interval.unwrap();
    assert!((a.value - 0.3).abs() < 1e-12 && (low - 0.1).abs() < 1e-12 && (high - 0.5).abs() < 1e-12, "{a:?}");
    // Seeds of which one has no interval have none together.
    assert_eq!(row("a").cells[2], Some(Cell { value: 3.0, interval: None }));
    assert_eq!(table.rows[0].kind, RowKind::Ceiling);
    assert_eq!(table.rows.iter().filter(|row| row.kind == RowKind::Model).count(), 4);
}

#[test]
fn rows_of_one_training_stand_or_fall_together() {
    let mut entrants = entrants();
    let twin =
        Entrant { name: "a, p = 1".into(), labels: vec!["twin, 1".into(), "twin, 2".into()], ..entrants.remove(0) };
    let table =
        Table::new(&report(), &[self::entrants().remove(0), twin].into_iter().chain(entrants).collect::<Vec<_>>());
    let index = |label: &str| table.rows.iter().position(|row| row.label == label).unwrap();
    assert!(table.is_best(0, index("a")) && table.is_best(0, index("a, p = 1")) && !table.is_best(0, index("b")));
    // Of spectra the twin has no number: it is another generation.
    assert!(table.is_best(1, index("a")) && !table.is_best(1, index("a, p = 1")));
}

#[test]
fn cross_entropies_of_other_levels_are_never_the_best_ones() {
    let table = Table::new(&report(), &entrants());
    let index = |label: &str| table.rows.iter().position(|row| row.label == label).unwrap();
    // d needs fewest nats, of other levels.
    assert_eq!(table.best(0), Some(index("a")));
    // In spectra a's interval ends at 0.5, b's begins at 0.8.
    assert_eq!(table.best(1), Some(index("a")));
    assert_eq!((table.best(2), table.best(3)), (None, None));
    let section = table.section();
    let html = &section.tables[0].rows;
    assert!(html[index("a")][2].starts_with("<b>0.300</b><br>"), "{html:?}");
    assert!(html[index("d")][1].starts_with("1.00†"), "{html:?}");
    assert!(section.text.iter().any(|text| text.contains("it was &lt;too&gt; large")), "{:?}", section.text);
    assert!(section.text.iter().any(|text| text.starts_with("† d: of other levels")), "{:?}", section.text);
    let csv = table.csv();
    assert!(csv.starts_with("row,kind,nats,nats_low,nats_high,spectrum,"), "{csv}");
    assert!(csv.lines().any(|line| line.starts_with("c,model,,,,") && line.ends_with("it was <too> large")), "{csv}");
    let json = section.numbers["rows"].as_array().unwrap();
    assert_eq!(json[index("a")]["cells"]["spectrum"]["best"], true);
    assert_eq!(json[index("b")]["cells"]["spectrum"]["best"], false);
    let text = table.text();
    assert!(text.lines().nth(1 + index("a")).unwrap().contains("0.300*"), "{text}");
}
