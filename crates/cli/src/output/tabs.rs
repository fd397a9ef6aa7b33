//! Elastic tab stops, as Go's `text/tabwriter` does them: the cells of a column in adjoining lines are equally wide.

/// Replaces tabs by spaces: a cell takes at least `minimum`, and at least its text and `padding`.
pub fn align(text: &str, minimum: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    measure(&lines, &mut widths, (0, lines.len()), 0, (minimum, padding));
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    out
}

/// A cell belongs to a column only if a tab ends it; lines without such a cell separate columns.
fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    (from, to): (usize, usize),
    column: usize,
    (minimum, padding): (usize, usize),
) {
    let has = |line: usize| lines[line].len() > column + 1;
    let mut start = from;
    while start < to {
        if !has(start) {
            start += 1;
            continue;
        }
        let end = (start..to).find(|line| !has(*line)).unwrap_or(to);
        let longest = (start..end).map(|line| lines[line][column].chars().count()).max().unwrap_or(0);
        let width = minimum.max(longest + padding);
        (start..end).for_each(|line| widths[line][column] = width);
        measure(lines, widths, (start, end), column + 1, (minimum, padding));
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::align;

    #[test]
    fn columns_end_where_a_line_has_none() {
        let text =
            align("Name:\tweb\nLabels:\ta=b\n\tc=d\nEvents:\n  Type\tReason\n  Normal\tPulled\n", 0, 2);
        expect![[r#"
            Name:    web
            Labels:  a=b
                     c=d
            Events:
              Type    Reason
              Normal  Pulled
        "#]]
        .assert_eq(&text);
    }
}
