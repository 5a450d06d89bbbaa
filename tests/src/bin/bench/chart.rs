//! The ratios as one SVG: a bar to the right where virtagent is better, to the left where it is worse, on a scale of
//! doublings. Written by hand, with no font or script of its own.

use std::fmt::Write;

use crate::table::{Row, Table};

const WIDTH: f64 = 934.0;
/// Where a bar of ratio 1 has its foot.
const FOOT: f64 = 494.0;
/// Half of the bars' room.
const ROOM: f64 = 150.0;
const LINE: f64 = 22.0;
const TOP: f64 = 72.0;

/// Draws the tables one below the other.
pub fn draw(tables: &[Table]) -> String {
    let ratios = tables.iter().flat_map(|table| &table.rows).filter_map(Row::ratio).filter(|ratio| *ratio > 0.0);
    let most = ratios.map(|ratio| ratio.log2().abs()).fold(2.0, f64::max).ceil();
    let lines: usize = tables.iter().map(|table| table.rows.len() + 2).sum();
    let height = TOP + LINE * lines as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"17\" font-weight=\"bold\" fill=\"#1a1a1a\">virtagent beside qemu-ga</text>\n\
         <text x=\"16\" y=\"46\" fill=\"#555555\">How many times better (right, green) or worse (left, red), by powers of two. Then the medians, virtagent : qemu-ga.</text>\n"
    );
    let mut y = TOP;
    for table in tables {
        let bottom = y + LINE * (table.rows.len() + 1) as f64;
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{:.0}\" font-weight=\"bold\" fill=\"#1a1a1a\">{}</text>",
            y + 8.0,
            escaped(&table.title)
        );
        scale(&mut svg, most, y + 16.0, bottom);
        for row in &table.rows {
            y += LINE;
            bar(&mut svg, row, most, y + 8.0);
        }
        y = bottom + LINE;
    }
    svg += "</svg>\n";
    svg
}

fn scale(svg: &mut String, most: f64, top: f64, bottom: f64) {
    let step = (most / 4.0).ceil().max(1.0);
    let mut power = -(most / step).floor() * step;
    while power <= most {
        let x = FOOT + power / most * ROOM;
        let (colour, label) = match power {
            0.0 => ("#888888", "1".to_owned()),
            p if p < 0.0 => ("#e4e4e4", format!("1/{:.0}", 2_f64.powf(-p))),
            p => ("#e4e4e4", format!("{:.0}", 2_f64.powf(p))),
        };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{colour}\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"10\" text-anchor=\"middle\" fill=\"#777777\">{label}</text>",
            top - 4.0
        );
        power += step;
    }
}

fn bar(svg: &mut String, row: &Row, most: f64, y: f64) {
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1a1a1a\">{}</text>",
        FOOT - ROOM - 14.0,
        y + 9.0,
        escaped(&row.what)
    );
    // Nought on one side is as far as the scale goes.
    let doublings = row.ratio().filter(|ratio| *ratio > 0.0).map(|ratio| ratio.log2().clamp(-most, most));
    let doublings = doublings.or_else(|| (row.ours.first()? < row.theirs.first()?).then_some(most)).unwrap_or(0.0);
    let length = (doublings / most * ROOM).abs();
    let (x, colour) = if doublings < 0.0 { (FOOT - length, "#c8503c") } else { (FOOT, "#3a8f5c") };
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"13\" fill=\"{colour}\"/>",
        y - 2.0,
        length.max(1.0)
    );
    let cell = |values: &[f64]| crate::table::median(values).map(crate::table::figure).unwrap_or_default();
    let figures = match row.ratio() {
        Some(ratio) if ratio > 0.0 => {
            format!("{}x   ({} : {} {})", crate::table::figure(ratio), cell(&row.ours), cell(&row.theirs), row.unit)
        }
        _ => format!("{} {}", row.verdict(), row.unit),
    };
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.1}\" fill=\"#333333\">{}</text>",
        FOOT + ROOM + 14.0,
        y + 9.0,
        escaped(&figures)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
