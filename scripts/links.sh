#!/bin/sh
# Names the relative links in Markdown files that lead nowhere, and fails if there are any.

anchors() { # as GitHub makes them from headings
	sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}

for page; do
	grep -o ']([^() ]*)' "$page" | sed 's/^](//; s/)$//' | while read -r link; do
		case $link in *:*) continue ;; esac
		path=${link%%#*}
		target=$page
		[ -z "$path" ] || target=$(dirname "$page")/$path
		if [ ! -e "$target" ]; then
			echo "$page: $link: there is no such file"
		elif [ "$path" != "$link" ] && ! anchors "$target" | grep -qxF -- "${link#*#}"; then
			echo "$page: $link: there is no such heading"
		fi
	done
done | if grep .; then exit 1; fi
