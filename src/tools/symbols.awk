# symbols.awk: what the files of the library take from each other.
#
#   nm -A -f sysv OBJECT... | awk -v known="NAME..." -v shared="NAME..." -f symbols.awk
#
# known: functions that the server calls by name.  shared: data that several files
# write.  Prints what is wrong: a function that no
# other file calls and that is external all the same, data that other files could
# write, files that call each other in a circle.  Exits with 1 when something is.

# nm prints FILE:NAME |VALUE |CLASS |TYPE |SIZE |LINE |SECTION.
BEGIN { FS = " *[|] *" }

NF >= 7 {
	file = name = $1
	sub(/:[^:]*$/, "", file)
	sub(/\.o$/, "", file)
	sub(/^.*:/, "", name)
	kind = $3
	gsub(/ /, "", kind)
	if (kind ~ /^[TDBCRGS]$/) {
		owner[name] = file
		writable[name] = kind ~ /^[DBCGS]$/ && $7 !~ /rel\.ro/
	} else if (kind == "U") {
		used[name] = 1
		takes[file] = takes[file] " " name
	}
}

function complain(text) {
	print text
	bad = 1
}

function visit(file, depth,    list, n, i, j, to, text) {
	state[file] = 1
	path[depth] = file
	n = split(takes[file], list, " ")
	for (i = 1; i <= n; i++) {
		to = owner[list[i]]
		if (to == "" || to == file)
			continue
		if (state[to] == 1) {
			text = to
			for (j = depth; path[j] != to; j--)
				text = path[j] " -> " text
			complain(file ".c: a circle of calls, closed by " list[i] ": " to " -> " text)
		} else if (state[to] == 0)
			visit(to, depth + 1)
	}
	state[file] = 2
}

END {
	if (length(owner) == 0)
		complain("no symbol was read")
	n = split(known, names, " ")
	for (i = 1; i <= n; i++)
		used[names[i]] = 1
	for (name in owner) {
		if (!(name in used) && name !~ /^(pg_finfo_|Pg_magic_func$|_PG_init$)/)
			complain(owner[name] ".c: nobody else uses " name ": it should be static, or go")
		# GUCs are written by the server alone, and their names say so.
		if (writable[name] && name !~ /^settings_/ && index(" " shared " ", " " name " ") == 0)
			complain(owner[name] ".c: " name " could be written by other files: they should ask a function")
	}
	for (file in takes)
		if (state[file] == 0)
			visit(file, 1)
	exit bad
}
