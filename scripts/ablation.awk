# The report of scripts/ablation.sh: reads its lines of tab-separated fields, writes OUT.md, OUT.json and OUT.svg.
#
#   steps N | before ACCURACY | table ID TITLE | row TABLE NAME LABEL OPTIONS | run NAME SEED ACCURACY
#
# A setting that stands in several tables comes several times with the same runs.
BEGIN { FS = "\t" }
$1 == "steps" { steps = $2 }
$1 == "before" { before = $2 }
$1 == "table" { tables[++num_tables] = $2; title[$2] = $3 }
$1 == "row" { i = ++num_rows[$2]; name[$2, i] = $3; label[$2, i] = $4; options[$2, i] = $5 }
$1 == "run" && !(($2, $3) in accuracy) {
  accuracy[$2, $3] = $4
  seed[$2, ++num_seeds[$2]] = $3
  if (num_seeds[$2] > most_seeds) most_seeds = num_seeds[$2]
}

function mean(setting,    i, sum) {
  for (i = 1; i <= num_seeds[setting]; i++) sum += accuracy[setting, seed[setting, i]]
  return sum / num_seeds[setting]
}
# Standard deviation of a run, with N - 1.
function spread(setting,    i, sum, m) {
  m = mean(setting)
  for (i = 1; i <= num_seeds[setting]; i++) sum += (accuracy[setting, seed[setting, i]] - m) ^ 2
  return sqrt(sum / (num_seeds[setting] - 1))
}
function percent(x) { return sprintf("%.1f", 100 * x) }
function summary(setting) {
  if (!num_seeds[setting]) return "-"
  return percent(mean(setting)) (num_seeds[setting] > 1 ? " ± " percent(spread(setting)) : "")
}
# Whether a table has runs to compare; one alone is a setting that it shares with another table.
function has_runs(table,    i, n) {
  for (i = 1; i <= num_rows[table]; i++) if (num_seeds[name[table, i]]) n++
  return n > 1
}

function write_markdown(file,    t, i, k, table, setting, each) {
  print "Greedy accuracy in % on the 500 test problems after " steps " steps: mean ± standard deviation over seeds. Before: " \
    percent(before) "." > file
  for (t = 1; t <= num_tables; t++) {
    table = tables[t]
    if (!has_runs(table)) continue
    print "\n### " title[table] "\n\n| setting | accuracy | seeds | each | options of `learner` |\n|---|---|---|---|---|" > file
    for (i = 1; i <= num_rows[table]; i++) {
      setting = name[table, i]
      each = ""
      for (k = 1; k <= num_seeds[setting]; k++) each = each (k > 1 ? ", " : "") percent(accuracy[setting, seed[setting, k]])
      print "| " label[table, i] " | " summary(setting) " | " num_seeds[setting] + 0 " | " each " | `" options[table, i] "` |" > file
    }
  }
  close(file)
}

function write_json(file,    t, i, k, table, setting, n) {
  printf "{\"steps\": %d, \"before\": %s, \"tables\": [", steps, before > file
  for (t = 1; t <= num_tables; t++) {
    table = tables[t]
    printf "%s\n  {\"table\": \"%s\", \"title\": \"%s\", \"rows\": [", (t > 1 ? "," : ""), table, title[table] > file
    for (i = 1; i <= num_rows[table]; i++) {
      setting = name[table, i]
      n = num_seeds[setting] + 0
      printf "%s\n    {\"setting\": \"%s\", \"label\": \"%s\", \"learner_options\": \"%s\", \"accuracy_by_seed\": {", \
        (i > 1 ? "," : ""), setting, label[table, i], options[table, i] > file
      for (k = 1; k <= n; k++)
        printf "%s\"%s\": %s", (k > 1 ? ", " : ""), seed[setting, k], accuracy[setting, seed[setting, k]] > file
      printf "}, \"mean\": %s, \"standard_deviation\": %s}", (n ? sprintf("%.5f", mean(setting)) : "null"), \
        (n > 1 ? sprintf("%.5f", spread(setting)) : "null") > file
    }
    printf "]}" > file
  }
  print "\n]}" > file
  close(file)
}

# Accuracy to pixels.
function x_of(a) { return sprintf("%.1f", left + (100 * a - low) / (high - low) * (right - left)) }
function text(x, y, anchor, what, more) {
  return sprintf("<text x=\"%s\" y=\"%s\" text-anchor=\"%s\"%s>%s</text>", x, y, anchor, more, what)
}

# One line per setting: a pale dot per seed, a dark one for the mean with a bar of one standard deviation either side.
function write_svg(file,    t, i, k, table, setting, y, x, s, m, body, height, tick) {
  left = 190; right = 620; low = 100 * before; high = low
  for (k in accuracy) {
    if (100 * accuracy[k] < low) low = 100 * accuracy[k]
    if (100 * accuracy[k] > high) high = 100 * accuracy[k]
  }
  low = 10 * int(low / 10); high = 10 * (int(high / 10) + 1)
  y = 44
  for (t = 1; t <= num_tables; t++) {
    table = tables[t]
    if (!has_runs(table)) continue
    y += 30
    body = body text(10, y, "start", title[table], " font-weight=\"bold\"") "\n"
    for (i = 1; i <= num_rows[table]; i++) {
      setting = name[table, i]
      y += 20
      body = body text(left - 12, y + 4, "end", label[table, i]) text(right + 12, y + 4, "start", summary(setting))
      if (!num_seeds[setting]) continue
      for (k = 1; k <= num_seeds[setting]; k++)
        body = body sprintf("<circle cx=\"%s\" cy=\"%d\" r=\"3\" fill=\"#9ab\"/>", x_of(accuracy[setting, seed[setting, k]]), y)
      m = mean(setting)
      if (num_seeds[setting] > 1) {
        s = spread(setting)
        body = body sprintf("<path d=\"M%s %dH%s\" stroke=\"#136\" stroke-width=\"2\"/>", x_of(m - s), y, x_of(m + s))
      }
      body = body sprintf("<circle cx=\"%s\" cy=\"%d\" r=\"4\" fill=\"#136\"/>\n", x_of(m), y)
    }
  }
  height = y + 40
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n", height > file
  print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>" > file
  print text(10, 24, "start", "geo-mini, " steps " steps: greedy accuracy in %, mean ± standard deviation, dashed: before") > file
  for (tick = low; tick <= high; tick += (high - low > 40 ? 10 : 5)) {
    x = x_of(tick / 100)
    printf "<path d=\"M%s 44V%d\" stroke=\"#ddd\"/>", x, y + 12 > file
    print text(x, y + 28, "middle", tick, " fill=\"#666\"") > file
  }
  printf "<path d=\"M%s 44V%d\" stroke=\"#c33\" stroke-dasharray=\"4 3\"/>\n%s</svg>\n", x_of(before), y + 12, body > file
  close(file)
}

END {
  write_markdown(out ".md")
  write_json(out ".json")
  write_svg(out ".svg")
}
