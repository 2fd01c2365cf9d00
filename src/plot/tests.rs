//! Documents are well formed whatever names hold, and pixels are as many as is said.

use super::*;

fn picture(title: &str) -> Picture {
    let names: Vec<String> = ["0", "<b>&", "2x8"].map(str::to_owned).to_vec();
    let heat = HeatMap {
        heading: "rates".to_owned(),
        rows: vec![vec![1.0, 0.5, 0.0], vec![0.25], vec![0.0; 5]],
        y: Axis::names("layer", &names),
        x: Axis::share("share of neurons"),
        scale: "rate".to_owned(),
        cut: Some((vec![0.5, 0.1, 0.0], "the cut".to_owned())),
    };
    let line = Line {
        name: Some("a line".to_owned()),
        colour: palette::BLUE,
        width: 4,
        dots: true,
        points: vec![(0.0, 0.0), (1.0, 1.0)],
    };
    let lines = Lines {
        heading: "curves".to_owned(),
        x: Axis::share("x"),
        y: Axis::up_to("time, ms", Ticks::Number, [3.5]),
        lines: vec![line],
        legend: vec![(Sample::Layers, "depth ".repeat(40)), (Sample::Plain(palette::INK), "ink ".repeat(20))],
    };
    let bars = Bars {
        heading: "bars".to_owned(),
        x: Axis::names("layer", &names),
        y: Axis::up_to("size, MiB", Ticks::Number, [7.0]),
        series: vec![
            ("one".to_owned(), palette::GREEN, vec![1.0, f64::NAN, 7.0]),
            ("two".to_owned(), palette::ORANGE, vec![2.0]),
        ],
        stacked: true,
        level: Some((4.0, "a level".to_owned())),
    };
    let cells = Cells {
        heading: "cells".to_owned(),
        x: Axis::names("layer", &names),
        y: Axis::names("", &["mixer".to_owned()]),
        rows: vec![vec![Some(0), None, Some(1)]],
        kinds: vec![("card".to_owned(), palette::BLUE), ("processor".to_owned(), palette::VERMILION)],
    };
    let panels = vec![Panel::Heat(heat), Panel::Lines(lines), Panel::Bars(bars), Panel::Cells(cells)];
    Picture { title: title.to_owned(), panels }
}

/// Names of elements, each of which ends where it must; what text holds is escaped.
fn elements(document: &str) -> Vec<String> {
    let (mut open, mut all, mut rest) = (Vec::new(), Vec::new(), document);
    while let Some(at) = rest.find('<') {
        let (text, after) = rest.split_at(at);
        assert!(
            !text.contains('>')
                && !text
                    .replace("&lt;", "")
                    .replace("&gt;", "")
                    .replace("&amp;", "")
                    .replace("&quot;", "")
                    .replace("&apos;", "")
                    .contains('&'),
            "{text}"
        );
        let end = after.find('>').expect("a tag ends");
        let tag = &after[1..end];
        assert!(!tag.contains('<') && tag.matches('"').count() % 2 == 0, "{tag}");
        rest = &after[end + 1..];
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name)),
            None => {
                let name = tag.split([' ', '/']).next().unwrap_or_default().to_owned();
                if !tag.ends_with('/') {
                    open.push(name.clone());
                }
                all.push(name);
            }
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty());
    all
}

#[test]
fn documents_are_well_formed_and_have_axes() {
    let svg = picture("a <script>alert(1)</script> & \u{1b}[31m \u{0}\u{ffff}\" model").svg().unwrap();
    let elements = elements(&svg);
    let count = |name: &str| elements.iter().filter(|element| *element == name).count();
    assert_eq!((count("svg"), count("script")), (1, 0));
    assert!(count("rect") > 20 && count("text") > 40 && count("polyline") >= 4, "{elements:?}");
    assert!(!svg.contains(['\u{1b}', '\u{0}', '\u{ffff}']));
    for words in [
        "share of neurons",
        "time, ms",
        "size, MiB",
        "the cut",
        "a line",
        "a level",
        "card",
        "processor",
        "2x8",
        "50 %",
    ] {
        assert!(svg.contains(words), "{words}");
    }
    assert!(svg.starts_with("<svg role=\"img\" width=\"960\""), "{}", &svg[..80]);
}

#[test]
fn pixels_are_twice_as_many_as_the_document_has() {
    let picture = picture("pixels");
    let bytes = picture.draw(Format::Png).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let (width, height) = picture.size();
    assert_eq!((reader.info().width, reader.info().height), (2 * width, 2 * height));
    assert_eq!(bytes, picture.draw(Format::Png).unwrap());
}

#[test]
fn a_long_legend_goes_on_below() {
    let mut picture = picture("legend");
    let before = picture.size().1;
    if let Panel::Lines(lines) = &mut picture.panels[1] {
        lines.legend.push((Sample::Plain(palette::GRAY), "gray ".repeat(20)));
    }
    assert!(picture.size().1 > before);
}

#[test]
fn the_ending_of_a_name_says_the_format() {
    let of = |name: &str| Format::of(Path::new(name));
    assert_eq!((of("a.svg").unwrap(), of("b.SVG").unwrap()), (Format::Svg, Format::Svg));
    assert_eq!((of("a.png").unwrap(), of("/dev/stdout").unwrap()), (Format::Png, Format::Png));
    assert!(of("a.jpg").unwrap_err().to_string().contains("a.jpg: pictures are .svg or .png files"));
}
