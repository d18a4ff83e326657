# assemble.awk: makes an update script of upgrade.sql and the parts of the install script.
#
#   awk -f assemble.awk upgrade.sql PART...
#
# A line "@new KIND NAME" of upgrade.sql (KIND: TABLE, TYPE, DOMAIN) stands for what the parts say to make that object,
# with its indexes; "@replace" for all functions and
# views, each made anew where it is different, and all comments. A statement of the parts begins at the first column
# with one of the words below, and ends before the next one or a line of comment.

function flush()
{
	if (statement != "")
		statements[++n] = statement
	statement = ""
}

FNR == 1 { flush(); part++ }

part == 1 { script[++lines] = $0; next }

/^(ALTER|COMMENT|CREATE|DO|GRANT|INSERT|REVOKE|SET) / || /^DO$/ || /^--/ { flush() }
/^--/ { next }
{ statement = statement (statement == "" ? "" : "\n") $0 }

# The object that a statement makes, as "KIND NAME"; of an index, the table that it is of.
function made(text,    words)
{
	split(text, words, /[ (\n;]+/)
	if (words[1] != "CREATE")
		return ""
	if (words[2] == "INDEX" || words[3] == "INDEX")
		return match(text, / ON gpu_orch\.[a-z_]+/) ? "TABLE " substr(text, RSTART + 4, RLENGTH - 4) : ""
	return words[2] " " words[3]
}

function trim(text)
{
	sub(/[ \n]+$/, "", text)
	return text
}

END {
	flush()
	for (l = 1; l <= lines; l++)
	{
		split(script[l], word, " ")
		found = 0
		if (word[1] == "@new")
		{
			for (i = 1; i <= n; i++)
				if (made(statements[i]) == word[2] " " word[3] && ++found)
					print trim(statements[i])
		}
		else if (word[1] == "@replace")
		{
			for (i = 1; i <= n; i++)
				if (statements[i] ~ /^CREATE (FUNCTION|VIEW) / && ++found)
					print "CREATE OR REPLACE" substr(trim(statements[i]), 7)
			for (i = 1; i <= n; i++)
				if (statements[i] ~ /^COMMENT /)
					print trim(statements[i])
		}
		else
		{
			print script[l]
			continue
		}
		if (!found)
		{
			print "upgrade.sql: nothing found for \"" script[l] "\"" > "/dev/stderr"
			exit 1
		}
	}
}
