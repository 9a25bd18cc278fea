# long.awk: no function is longer than 80 lines, unless its comment says why:
# "Long, because ..."
#
#   awk -f long.awk FILE...

FNR == 1 {
	start = reason = last_end = 0
}

# (a comment that ends just before the function begins)
/Long, because/ { reason = FNR }

# (a table has its brace behind an empty line)
/^\{/ { start = previous ~ /\)$/ ? FNR : 0 }

/^\}/ {
	if (start && FNR - start + 1 > 80 && (reason == 0 || reason < last_end)) {
		print FILENAME ":" start ": this function has " FNR - start + 1 " lines"
		bad = 1
	}
	start = 0
	last_end = FNR
}

{ previous = $0 }

END { exit bad }
