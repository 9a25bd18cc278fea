# chart.gp: bench.svg, from what report.py has written.  Run by gnuplot in that folder.
set terminal svg size 960,360 dynamic enhanced font 'sans-serif,12' background '#ffffff'
set output 'bench.svg'
set datafile separator "\t"
set datafile missing '?'
set style data histograms
set style histogram clustered gap 1
set style fill solid 1.0 border lt -1
set boxwidth 0.9
set border 3
set tics nomirror out
set grid ytics lc rgb '#dddddd'
set key top left samplen 1
set xtics nomirror noenhanced
on = system('cat on')
titles = "'A warm call, microseconds' 'A new TLS connection, ms' '1,000 keys, 100 at once, ms'"
charts = 'warm connect batch'
there = ''
do for [chart in charts] {
	if (system('test -s '.chart.'.tsv && echo there') eq 'there') { there = there.' '.chart }
}
colours = '#4c6a92 #8fb0d3 #c9a227 #a85751'

set multiplot layout 1,words(there) margins 0.05,0.99,0.2,0.88 spacing 0.06
set label 1 'Measured on: '.on at screen 0.01,0.04 left noenhanced font ',10'
do for [c = 1:3] {
	name = word(charts, c).'.tsv'
	if (strstrt(there, word(charts, c)) > 0) {
		set title word(titles, c) noenhanced
		# what does one request after another takes a hundred times as long as a batch
		if (c == 3) { set logscale y; set yrange [1:*] } else { set yrange [0:*] }
		cases = int(system("awk -F'\t' 'NR == 1 { print NF - 1 }' ".name))
		plot for [i = 1:cases] name using (column(i + 1)):xtic(1) title columnheader(i + 1) \
			noenhanced linecolor rgb word(colours, i)
		unset label 1
	}
}
unset multiplot
